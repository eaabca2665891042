"""From a sweep's runs to what is reported: tables, figures, claims, comparisons, README blocks.
Knows no run."""
