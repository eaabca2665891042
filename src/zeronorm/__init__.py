"""zeronorm: why a cosine ranker's weights turn to NaN, as an experiment-tracked ablation."""
