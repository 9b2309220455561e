"""Writes dashboards/chorus.json from the table of panels below: python deploy/grafana/build.py

The JSON is checked in, so that Grafana needs no build step. A test fails if the two differ.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parent / "dashboards" / "chorus.json"
DATASOURCE = {"type": "prometheus", "uid": "chorus-prometheus"}
WINDOW = "$__rate_interval"
SELECTED = 'job="$job", instance=~"$replica"'
"""The series of the replicas that were chosen."""

Query = tuple[str, str]
"""PromQL and the legend."""


def rate(name: str, by: str = "") -> str:
    """Events a second, summed."""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({name}{{{SELECTED}}}[{WINDOW}]))"


def quantiles(name: str) -> list[Query]:
    """The median, p90 and p99 of a histogram."""
    buckets = f"sum by (le) (rate({name}_bucket{{{SELECTED}}}[{WINDOW}]))"
    return [(f"histogram_quantile({q}, {buckets})", f"p{round(q * 100)}") for q in (0.5, 0.9, 0.99)]


def mean(name: str) -> str:
    """The mean of a histogram."""
    return f"{rate(name + '_sum')} / {rate(name + '_count')}"


def gauge(name: str) -> str:
    return f"sum ({name}{{{SELECTED}}})"


def by_replica(name: str) -> list[Query]:
    """A gauge of each replica."""
    return [(f"sum by (instance) ({name}{{{SELECTED}}})", "{{instance}}")]


def of_tenant(name: str, by: str, more: str = "") -> str:
    """Events a second of the tenants that were chosen, summed."""
    return f'sum by ({by}) (rate({name}{{{SELECTED}, tenant=~"$tenant"{more}}}[{WINDOW}]))'


def of_task(name: str, by: str, more: str = "") -> str:
    """Events a second of the task that was chosen, summed."""
    return f'sum by ({by}) (rate({name}{{{SELECTED}, task=~"$task"{more}}}[{WINDOW}]))'


def top(name: str, label: str) -> list[Query]:
    return [(f"topk(10, {rate(name, label)})", f"{{{{{label}}}}}")]


ROWS: tuple[tuple[str, tuple[tuple[str, str, list[Query]], ...]], ...] = (
    (
        "Traffic",
        (
            (
                "Requests a second",
                "reqps",
                [(rate("chorus_requests_total", "kind, outcome"), "{{kind}} {{outcome}}")],
            ),
            ("Request time", "s", quantiles("chorus_request_seconds")),
            ("First token", "s", quantiles("chorus_first_token_seconds")),
            (
                "Tokens a second",
                "short",
                [(rate("chorus_input_tokens_total"), "in"), (rate("chorus_output_tokens_total"), "out")],
            ),
            (
                "Refused a second",
                "reqps",
                [(f"{rate('chorus_requests_refused_total', 'code')} or vector(0)", "{{code}}")],
            ),
            (
                "Uploads a second",
                "reqps",
                [
                    (rate("chorus_uploads_accepted_total"), "accepted"),
                    (f"{rate('chorus_uploads_refused_total', 'reason')} or vector(0)", "refused: {{reason}}"),
                ],
            ),
            (
                "HTTP answers a second",
                "reqps",
                [(rate("chorus_http_request_seconds_count", "route, status"), "{{route}} {{status}}")],
            ),
        ),
    ),
    (
        "Engine",
        (
            ("Waiting in the queue", "s", quantiles("chorus_queue_seconds")),
            ("Prefill", "s", quantiles("chorus_prefill_seconds")),
            ("Decode", "s", quantiles("chorus_decode_seconds")),
            (
                "A batch",
                "short",
                [(mean("chorus_batch_rows"), "requests"), (mean("chorus_batch_tasks"), "distinct tasks")],
            ),
            (
                "Padding waste",
                "percentunit",
                [
                    (
                        f"1 - {rate('chorus_real_tokens_total')} / {rate('chorus_padded_tokens_total')}",
                        "share of encoder tokens",
                    )
                ],
            ),
            (
                "Slots",
                "short",
                [(gauge("chorus_slots_in_use"), "in use"), (gauge("chorus_slots"), "there are")],
            ),
            (
                "Requests in the engine",
                "short",
                [
                    (gauge(f"chorus_{state}_requests"), state)
                    for state in ("queued", "loading", "prefilling", "decoding")
                ],
            ),
            (
                "Step time",
                "s",
                [
                    (mean("chorus_prefill_step_seconds"), "prefill step"),
                    (mean("chorus_decode_step_seconds"), "decode dispatch"),
                ],
            ),
        ),
    ),
    (
        "Prompts",
        (
            (
                "Prompt rows: hits and loads a second",
                "short",
                [
                    (rate("chorus_prompt_hits_total"), "hits"),
                    (rate("chorus_prompt_loads_total"), "loads"),
                    (rate("chorus_prompt_evictions_total"), "evictions"),
                ],
            ),
            ("Fetch from the store", "s", quantiles("chorus_prompt_fetch_seconds")),
            (
                "Rows of the device table",
                "short",
                [
                    (gauge("chorus_prompt_rows_capacity"), "capacity"),
                    (gauge("chorus_prompt_rows_resident"), "resident"),
                    (gauge("chorus_prompt_rows_in_use"), "in use"),
                ],
            ),
            (
                "Prompts in memory",
                "bytes",
                [
                    (gauge("chorus_prompt_rows_bytes"), "on the device"),
                    (gauge("chorus_host_prompt_bytes"), "on the host"),
                ],
            ),
            (
                "Unneeded blobs collected a second",
                "Bps",
                [(rate("chorus_collected_bytes_total"), "bytes")],
            ),
        ),
    ),
    (
        "Replicas",
        (
            (
                "Requests a second by replica",
                "reqps",
                [(rate("chorus_requests_total", "instance"), "{{instance}}")],
            ),
            (
                "Request time by replica, p99",
                "s",
                [
                    (
                        f"histogram_quantile(0.99, {rate('chorus_request_seconds_bucket', 'instance, le')})",
                        "{{instance}}",
                    )
                ],
            ),
            ("Work units that wait by replica", "short", by_replica("chorus_queued_work_units")),
            ("Running requests by replica", "short", by_replica("chorus_running_requests")),
            ("Use of the cache by replica", "percentunit", by_replica("chorus_cache_usage")),
            ("Ready by replica", "short", by_replica("chorus_ready")),
        ),
    ),
    (
        "Tenants and tasks",
        (
            ("Requests a second by tenant", "reqps", top("chorus_tenant_requests_total", "tenant")),
            ("Tokens a second by tenant", "short", top("chorus_tenant_tokens_total", "tenant")),
            ("Requests a second by task", "reqps", top("chorus_task_requests_total", "task")),
            (
                "Outcomes of the chosen tenants",
                "reqps",
                [(of_tenant("chorus_tenant_requests_total", "tenant, outcome"), "{{tenant}} {{outcome}}")],
            ),
            (
                "Tokens of the chosen tenants by replica",
                "short",
                [
                    (
                        of_tenant("chorus_tenant_tokens_total", "tenant, instance, direction"),
                        "{{tenant}} {{direction}} {{instance}}",
                    )
                ],
            ),
            (
                "Failing share of the chosen tenants",
                "percentunit",
                [
                    (
                        of_tenant("chorus_tenant_requests_total", "tenant", ', outcome!~"ok|cancelled"')
                        + " / "
                        + of_tenant("chorus_tenant_requests_total", "tenant")
                        + " or vector(0)",
                        "{{tenant}}",
                    )
                ],
            ),
        ),
    ),
    (
        "Versions",
        (
            (
                "Requests a second by version",
                "reqps",
                [
                    (
                        f"topk(10, {of_task('chorus_version_requests_total', 'task, version')})",
                        "{{task}}@{{version}}",
                    )
                ],
            ),
            (
                "Failing share by version",
                "percentunit",
                [
                    (
                        of_task("chorus_version_requests_total", "task, version", ', outcome!~"ok|cancelled"')
                        + " / "
                        + of_task("chorus_version_requests_total", "task, version")
                        + " or vector(0)",
                        "{{task}}@{{version}}",
                    )
                ],
            ),
        ),
    ),
    (
        "Tuning",
        (
            (
                "Jobs at hand and steps a second",
                "short",
                [(gauge("chorus_tuning_running"), "at hand"), (rate("chorus_tuning_steps_total"), "steps")],
            ),
            (
                "Device share and slices",
                "s",
                [
                    (rate("chorus_tuning_slice_seconds_sum"), "share of the device"),
                    *quantiles("chorus_tuning_slice_seconds"),
                ],
            ),
            (
                "Ends of runs a second",
                "short",
                [(rate("chorus_tuning_runs_ended_total", "ending"), "{{ending}}")],
            ),
        ),
    ),
    (
        "Health",
        (
            (
                "Ready",
                "short",
                [(gauge("chorus_ready"), "servers ready"), (gauge("up"), "servers up")],
            ),
            (
                "Compiles",
                "short",
                [(f"sum by (cause) (chorus_compiles_total{{{SELECTED}}})", "{{cause}}")],
            ),
            (
                "Spans and log lines lost",
                "short",
                [
                    (rate("chorus_spans_lost_total"), "spans a second"),
                    (gauge("chorus_log_lines_lost"), "lines"),
                ],
            ),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    """The whole document."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS:
        panels.append(
            _base(len(panels) + 1, "row", title, {"h": 1, "w": 24, "x": 0, "y": y}) | {"collapsed": False}
        )
        y += 1
        for place, (name, unit, queries) in enumerate(row):
            where = {"h": 8, "w": 8, "x": 8 * (place % 3), "y": y + 8 * (place // 3)}
            panels.append(_panel(len(panels) + 1, name, unit, queries, where))
        y += 8 * -(-len(row) // 3)
    return {
        "uid": "chorus",
        "title": "Chorus",
        "tags": ["chorus"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {
            "list": [
                _variable("job", "chorus_ready", "job"),
                _variable("replica", 'chorus_ready{job="$job"}', "instance", many=True),
                _variable("tenant", 'chorus_tenant_requests_total{job="$job"}', "tenant", many=True),
                _variable("task", 'chorus_version_requests_total{job="$job"}', "task", many=True),
                _CONSOLE,
            ]
        },
        "links": [
            _link(title, "${console}" + path) | {"type": "link"}
            for title, path in (("Console", ""), ("This hour in the console", "/operations"))
        ],
        "panels": panels,
    }


_CONSOLE = {
    "name": "console",
    "label": "console",
    "type": "textbox",
    "query": "http://127.0.0.1:8000/console",
    "current": {"text": "http://127.0.0.1:8000/console", "value": "http://127.0.0.1:8000/console"},
}
"""Where a browser finds the console of one of the servers."""

_TASK = ("This task in the console", "${console}/tasks/${__field.labels.task}")
_LINKS = {
    "Requests a second by task": _TASK,
    "Requests a second by version": _TASK,
    "Failing share by version": _TASK,
    "Requests a second by tenant": (
        "What this tenant uses, in the console",
        "${console}/tenants/usage?tenant=${__field.labels.tenant}",
    ),
}
"""Of a panel's lines: what a click on one offers."""


def _link(title: str, url: str) -> dict[str, Any]:
    return {"title": title, "url": url, "targetBlank": True}


def _variable(name: str, series: str, label: str, many: bool = False) -> dict[str, Any]:
    """What a user chooses: one value of a label, or any number of them, at first all."""
    query = f"label_values({series}, {label})"
    chosen = {"text": "All", "value": "$__all"} if many else {"text": "chorus", "value": "chorus"}
    return {
        "name": name,
        "label": name,
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "multi": many,
        "includeAll": many,
        "allValue": ".*" if many else None,
        "current": chosen,
    }


def _base(number: int, kind: str, title: str, where: dict[str, int]) -> dict[str, Any]:
    return {"id": number, "type": kind, "title": title, "gridPos": where}


def _panel(number: int, title: str, unit: str, queries: list[Query], where: dict[str, int]) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + n), "datasource": DATASOURCE, "expr": expr, "legendFormat": legend}
        for n, (expr, legend) in enumerate(queries)
    ]
    drawn: dict[str, Any] = {"unit": unit, "min": 0, "custom": {"fillOpacity": 10}}
    if title in _LINKS:
        drawn["links"] = [_link(*_LINKS[title])]
    return _base(number, "timeseries", title, where) | {
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": drawn, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": targets,
    }


if __name__ == "__main__":
    TARGET.write_text(json.dumps(dashboard(), indent=1) + "\n")
