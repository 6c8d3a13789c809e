"""Makes Grafana's JSON of the dashboard's source.

    generate.py            writes istio/chart/dashboards/meshgate.json
    generate.py --check    fails if that file is not what the source makes

No ids, times or versions that would differ from one run to the next.
"""

import json
import pathlib
import sys
import tomllib

HERE = pathlib.Path(__file__).parent
SOURCE = HERE / "meshgate.toml"
TARGET = HERE.parent / "chart" / "dashboards" / "meshgate.json"

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24
HEIGHTS = {"row": 1, "stat": 4, "timeseries": 8}


def main(arguments):
    text = json.dumps(dashboard(tomllib.loads(SOURCE.read_text())), indent=2, ensure_ascii=False) + "\n"
    if arguments == ["--check"]:
        if TARGET.read_text() != text:
            sys.exit(f"{TARGET} is not what {SOURCE.name} makes: python3 {pathlib.Path(*HERE.parts[-2:])}/generate.py")
    elif arguments:
        sys.exit(__doc__)
    else:
        TARGET.parent.mkdir(exist_ok=True)
        TARGET.write_text(text)


def dashboard(source):
    panels, top = [], 0
    for row in source["rows"]:
        panels.append({"id": len(panels) + 1, "type": "row", "title": row["title"], "collapsed": False,
                       "gridPos": place(0, top, COLUMNS, "row"), "panels": []})
        left, top = 0, top + HEIGHTS["row"]
        for spec in row["panels"]:
            kind, width = spec.get("kind", "timeseries"), spec.get("width", 8)
            if left + width > COLUMNS:
                left, top = 0, top + HEIGHTS[kind]
            panels.append(panel(len(panels) + 1, kind, spec, source["selectors"])
                          | {"gridPos": place(left, top, width, kind)})
            left += width
        top += HEIGHTS[kind]
    return {
        "uid": source["uid"],
        "title": source["title"],
        "tags": ["meshgate", "envoy"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": variables()},
        "panels": panels,
    }


def panel(number, kind, spec, selectors):
    defaults = {"unit": spec.get("unit", "short"), "min": 0}
    if kind == "timeseries":
        defaults["custom"] = {"fillOpacity": 10, "showPoints": "never"}
        options = {"legend": {"displayMode": "list", "placement": "bottom"},
                   "tooltip": {"mode": "multi", "sort": "desc"}}
    else:
        options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "graphMode": "area"}
    return {
        "id": number,
        "type": kind,
        "title": spec["title"],
        "description": spec.get("help", ""),
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [target(chr(ord("A") + index), query, selectors)
                    for index, query in enumerate(spec["queries"])],
    }


def target(letter, query, selectors):
    expression = query["expr"].replace("$window", "$__rate_interval")
    for name, selector in selectors.items():
        expression = expression.replace(f"${name}", selector)
    return {"refId": letter, "datasource": DATASOURCE, "expr": expression,
            "legendFormat": query.get("legend", ""), "range": True}


def variables():
    """A label that is not there matches `.*`, so that an Envoy outside Kubernetes is shown too."""
    def labels(name, label, of, narrowed=""):
        return {"name": name, "label": name, "type": "query", "datasource": DATASOURCE,
                "query": {"query": f"label_values({of}{narrowed}, {label})", "refId": name},
                "refresh": 2, "sort": 1, "multi": True, "includeAll": True, "allValue": ".*",
                "current": {"text": "All", "value": "$__all"}}
    return [
        {"name": "datasource", "label": "datasource", "type": "datasource", "query": "prometheus"},
        labels("namespace", "namespace", '{__name__=~"meshgate_connections|meshgate_companion_sessions"}'),
        labels("pod", "pod", "meshgate_connections", '{namespace=~"$namespace"}'),
        labels("instance", "instance", "meshgate_connections",
               '{namespace=~"$namespace", pod=~"$pod"}'),
    ]


def place(left, top, width, kind):
    return {"x": left, "y": top, "w": width, "h": HEIGHTS[kind]}


if __name__ == "__main__":
    main(sys.argv[1:])
