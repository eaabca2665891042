"""What MLflow's pages show first of an experiment: its saved views, and the addresses that open
them. No MLflow here.

A saved view is a tag of the experiment in a form of MLflow's own, which it does not document: a
version that does not know it ignores it. tests/test_ui.py opens it in the locked one.
"""

import json

PORT = 5000  # of `zeronorm ui`, unless it is told another
TAG = "mlflow.sharedViewState."  # of an experiment, with the view's id
COLOUR = "mlflow.runColor"  # tag of a run: of its mark in every list, and of its curves
NAN, FINITE = "#D55E00", "#0072B2"  # as in the figures
DIED, CURVES = "what-died", "curves"  # views
# what the link to CURVES opens, beside the menu of views. Its order is the other way round, because
# of curves the last lie on top: there the dead, which have a point or two; in a list they are first
DRAWN = "curves-drawn"
NAMES = {DIED: "What died, where, why and what cures it", CURVES: "Curves of dead and living runs"}

# columns of the runs, with their widths in pixels: what fits beside a panel that MLflow opens on
# one's first visit comes first, up to the cure in a window of 1440 pixels
COLUMNS = {
    "attributes.`Run Name`": 205,
    "metrics.`nan/step`": 68,
    "tags.`guilty.operation`": 80,
    "tags.`guilty.line`": 115,
    "tags.`guilty.title`": 112,
    "tags.`cure`": 160,
    "tags.`nan.first_tensor`": 70,
    "metrics.`nan/step_predicted`": 70,
    "metrics.`eval/hits_at_10`": 75,
    "tags.`outcome`": 70,
    "runDateAndNestInfo": 45,
}
# section of the charts: its metrics, and whether their axis is logarithmic
CHARTS = {
    "norm of the weights": (
        ("norm/titles", "norm/convolution/kernel", "norm/dense/kernel", "norm/words"),
        True,
    ),
    "loss": (("train/loss",), True),
    "how well it ranks": (("eval/hits_at_10", "eval/hits_at_1", "eval/mrr"), False),
    "predicted and seen NaN steps": (("nan/step_predicted", "nan/step"), False),
}
# MLflow titles a chart by its metric, and cuts it in three columns beside its panel: two, of a
# height that shows two rows
GRID = {"columns": 2, "cardHeight": 270}
AT_THE_END = ("how well it ranks", "predicted and seen NaN steps")  # one value a run: bars


def tags() -> dict[str, str]:
    """{tag: value} of an experiment, which make its saved views."""
    curves = _state() | {"runsHiddenMode": "SHOW_ALL"}
    found = {
        TAG + view: json.dumps(
            # a date that stays: the tag is written again only where the view has changed
            {"name": NAMES[view], "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)}
        )
        for view, state in {DIED: _state(), CURVES: curves}.items()
    }
    # without a name: MLflow opens it by its address, and leaves it out of its menu
    return found | {TAG + DRAWN: json.dumps(curves | {"orderByAsc": True})}


def page(base: str, experiment: str, view: str = DIED) -> str:
    """The address of an experiment's runs in a saved view.

    base: of the server, "http://127.0.0.1:5000"; empty for a link inside of MLflow.
    experiment: its id.
    """
    key = f"{DRAWN}&compareRunsMode=CHART" if view == CURVES else view
    query = f"workflowType=machine_learning&viewStateShareKey={key}"
    return f"{base}#/experiments/{experiment}/runs?{query}"


def artifact(base: str, experiment: str, run: str, path: str) -> str:
    """The address of a file of a run. base, experiment: as `page` has them."""
    query = "workflowType=machine_learning"
    return f"{base}#/experiments/{experiment}/runs/{run}/artifacts/{path}?{query}"


def _state() -> dict:
    sections = [
        {"uuid": _id(name), "name": name, "display": True, "isReordered": True}
        | {"deleted": False, "isGenerated": False, **GRID}
        for name in CHARTS
    ]
    charts = [
        _chart(section, metric, logarithmic)
        for section, (metrics, logarithmic) in CHARTS.items()
        for metric in metrics
    ]
    shown = [key for key in COLUMNS if key.startswith(("metrics.", "tags."))]
    return {
        "searchFilter": "tags.kind = 'run'",  # without the sweeps, which fold them away
        "orderByKey": "tags.`outcome`",
        "orderByAsc": False,  # nan, killed, finite
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": shown,
        "columnOrder": list(COLUMNS),
        "columnWidths": COLUMNS,
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "FIRST_20_RUNS",
        "compareRunCharts": charts,
        "compareRunSections": sections,
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,  # otherwise MLflow's own sections come first
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "autoRefreshEnabled": True,
        "globalLineChartConfig": {
            "xAxisKey": "step",
            "lineSmoothness": 0,
            "selectedXAxisMetricKey": "",
        },
    }


def _id(name: str) -> str:
    return "zeronorm-" + name.replace(" ", "-").replace("/", "-")


def _chart(section: str, metric: str, logarithmic: bool) -> dict:
    one = {
        "uuid": _id(metric),
        "deleted": False,
        "isGenerated": False,
        "metricSectionId": _id(section),
        "runsCountToCompare": 100,
        "metricKey": metric,
        "displayName": metric,
    }
    if section in AT_THE_END:
        return one | {"type": "BAR"}
    return one | {
        "type": "LINE",
        "selectedMetricKeys": [metric],
        "lineSmoothness": 0,
        "xAxisScaleType": "linear",
        "scaleType": "log" if logarithmic else "linear",
        "range": {},
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "displayPoints": True,
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }
