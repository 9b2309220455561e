"""`chorus tasks pull hub:...` and `push-hub`: the real huggingface_hub, in a process of its own, between a
small hub and a real server."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from chorus import HubError, ModelMismatchError, hub
from chorus.types import ModelInfo
from tests.faults.artifact_builders import VALUES, config_file, of_tasks, weights_file
from tests.hub_server import HubServer, Repository
from tests.server.api.api_harness import FINGERPRINT, ApiServer, prompt
from tether import tethered

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_COMMANDS = """
import json, os, sys
from click.testing import CliRunner
from chorus.cli.root import chorus

for line in sys.stdin:
    asked = json.loads(line)
    os.environ.pop("HF_TOKEN", None)
    os.environ.update(asked["environment"])
    done = CliRunner().invoke(chorus, asked["words"])
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    found = {"code": done.exit_code, "stdout": done.stdout, "stderr": done.stderr}
    print(json.dumps(found), flush=True)
"""
"""Answers a line with what the command did; ends where an exception came out."""


class Command:
    """The command in a process of its own: huggingface_hub reads its environment once."""

    def __init__(self, hub: HubServer, url: str, home: Path) -> None:
        self.hub = hub
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "CHORUS_URL": url,
        }
        self._process = subprocess.Popen(
            tethered([sys.executable, "-c", _COMMANDS]),
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __call__(self, *words: str, token: str | None = None) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        given = {} if token is None else {"HF_TOKEN": token}
        self._process.stdin.write(json.dumps({"words": words, "environment": given}) + "\n")
        self._process.stdin.flush()
        done = SimpleNamespace(**json.loads(self._process.stdout.readline()))
        assert self.hub.token not in done.stdout + done.stderr
        ours = [line for line in done.stderr.splitlines() if line.startswith("chorus:")]
        assert not any("a_signature" in line or "http" in line for line in ours), ours
        return done

    def tasks(self, *words: str, token: str | None = None) -> Any:
        """A command that succeeds, as JSON."""
        done = self("tasks", *words, "--json", token=token)
        assert done.code == 0, done.stderr
        return json.loads(done.stdout)

    def stop(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def there() -> Iterator[HubServer]:
    running = HubServer()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def run(there: HubServer, api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    command = Command(there, api.url, tmp_path_factory.mktemp("hf"))
    yield command
    command.stop()


def adapter(**config: Any) -> dict[str, bytes]:
    """The files of a PEFT adapter for the server's base, and what else lies beside them."""
    files = {
        CONFIG: config_file(base_model_name_or_path="someone/else/tiny", **config),
        WEIGHTS: weights_file(),
    }
    return {**files, "optimizer.pt": b"not wanted"}


def test_a_branch_becomes_a_version_that_names_its_commit(run: Command, there: HubServer) -> None:
    repository = there.add("ann/Weather", adapter())
    first = repository.names["main"]
    repository.commit({WEIGHTS: weights_file(VALUES * 2)})
    repository.names["v1"] = first
    there.asked.clear()
    version = run.tasks(
        "pull", "hub:ann/Weather@v1", "--label", "no", "--label", "yes", "--template", "a {text}"
    )
    assert (version["task"], version["labels"], version["template"]) == (
        "default/weather",
        ["no", "yes"],
        "a {text}",
    )
    assert version["lineage"]["hub"] == {"repository": "ann/Weather", "revision": "v1", "commit": first}
    assert not any("optimizer.pt" in each for each in there.asked)
    newer = run.tasks("pull", "hub:ann/Weather", "--task", "weather", "--promote")
    assert (newer["version"], newer["aliases"], newer["digest"] == version["digest"]) == (2, ["live"], False)
    assert newer["lineage"]["hub"]["revision"] == "main"
    # The commit itself is a revision too, and gives the version that is there already.
    said = ("--label", "no", "--label", "yes", "--template", "a {text}")
    again = run.tasks("pull", f"hub:ann/Weather@{first}", "--task", "weather", *said)
    assert (again["version"], again["created"]) == (1, False)


def test_one_task_of_several(run: Command, there: HubServer) -> None:
    with zipfile.ZipFile(io.BytesIO(of_tasks(config={"base_model_name_or_path": None}))) as archive:
        there.add("ann/tasks", {name: archive.read(name) for name in archive.namelist()})
    folded = run.tasks("pull", "hub:ann/tasks", "--task", "first-of-several", "--task-index", "0")
    assert folded["lineage"]["task_index"] == 0
    refused = run("tasks", "pull", "hub:ann/tasks", "--task-index", "1")
    assert (refused.code, "peft_task in metadata.task_index" in refused.stderr) == (1, True)


def test_there_and_back(run: Command, there: HubServer, api: ApiServer) -> None:
    made = api.push(
        "round",
        4,
        seed=7,
        template="it said: {text}",
        labels=["no", "yes"],
        metrics='{"accuracy": 0.93}',
        settings='{"max_new_tokens": 3}',
        base_fingerprint=FINGERPRINT,
        lineage='{"train": "data/secret.tsv"}',
    )
    words = ("push-hub", "round@1", "ann/round", "--license", "apache-2.0")
    refused = run("tasks", *words)
    assert (refused.code, refused.stderr) == (
        1,
        "chorus: The hub answered 401 for ann/round. Check HF_TOKEN and what it may do.\n",
    )
    pushed = run.tasks(*words, token=there.token)
    repository = there.repositories["ann/round"]
    files = repository.commits[repository.names["main"]]
    assert pushed["hub"] == f"ann/round@{repository.names['main']}"
    assert set(files) == {".gitattributes", "README.md", CONFIG, WEIGHTS}
    assert repository.private
    assert b"secret.tsv" not in b"".join(files.values())
    front, text = files["README.md"].decode().split("---\n")[1:3]
    about = yaml.safe_load(front)
    assert (about["base_model"], about["library_name"], about["license"]) == ("tiny", "peft", "apache-2.0")
    assert about["metrics"] == ["accuracy"]
    vocabulary = api.http.get("/v1/model").json()["vocabulary_digest"]
    assert about["chorus"] == {
        "digest": made["digest"],
        "base_fingerprint": FINGERPRINT,
        "vocabulary_digest": vocabulary,
    }
    facts = json.loads(text.split("```json\n")[1].split("```")[0])
    assert (facts["labels"], facts["metrics"]) == (["no", "yes"], {"accuracy": 0.93})
    assert "chorus tasks pull hub:ann/round" in text and "PeftModel.from_pretrained" in text

    # It is private: without the token it is not there.
    hidden = run("tasks", "pull", f"hub:{pushed['hub']}", "--task", "back")
    assert (hidden.code, "no repository" in hidden.stderr) == (1, True)
    back = run.tasks("pull", f"hub:{pushed['hub']}", "--task", "back", token=there.token)
    for name in ("digest", "template", "labels", "settings", "base_fingerprint", "manifest_digest"):
        assert back[name] == made[name], name
    assert back["lineage"]["hub"]["commit"] == repository.names["main"]
    assert there.seen and set(there.seen) == {None}, "the store of large files got the token"
    stored = api.http.get("/v1/tasks/back/versions/1/artifact", params={"format": "npy"}).content
    assert stored.endswith(prompt(4, 7).tobytes())


def gated(repository: Repository) -> None:
    repository.gated = True


def only_pickle(repository: Repository) -> None:
    files = repository.commits[repository.names["main"]]
    files["adapter_model.bin"] = files.pop(WEIGHTS)


def no_adapter(repository: Repository) -> None:
    del repository.commits[repository.names["main"]][CONFIG]


def huge(repository: Repository) -> None:
    repository.listed[WEIGHTS] = 300 * 2**20


def other_bytes(repository: Repository) -> None:
    repository.in_body[WEIGHTS] = lambda data: data[:-1] + bytes([data[-1] ^ 1])


def other_config(repository: Repository) -> None:
    repository.in_body[CONFIG] = lambda data: data.replace(b"1", b"2", 1)


def shorter(repository: Repository) -> None:
    repository.in_body[WEIGHTS] = lambda data: data[:-8]


@pytest.mark.parametrize(
    ("fault", "revision", "says"),
    [
        (gated, "main", "accept its conditions on the hub, and set HF_TOKEN"),
        (None, "v9", "no such revision: ann/faulty@v9"),
        (only_pickle, "main", "has only adapter_model.bin, a pickle"),
        (no_adapter, "main", "it is not a PEFT adapter"),
        (huge, "main", "has 314572800 bytes"),
        (other_bytes, "main", f"{WEIGHTS} of ann/faulty@main did not arrive as the hub lists it"),
        (other_config, "main", f"{CONFIG} of ann/faulty@main did not arrive as the hub lists it"),
        (shorter, "main", f"{WEIGHTS} of ann/faulty@main did not arrive as the hub lists it"),
    ],
)
def test_what_cannot_be_had_is_said(
    run: Command, there: HubServer, api: ApiServer, fault: Any, revision: str, says: str
) -> None:
    repository = there.add("ann/faulty", adapter())
    # The control: but for the fault, it is had.
    assert run.tasks("pull", "hub:ann/faulty@main", "--task", "control")["digest"]
    if fault is not None:
        fault(repository)
    there.asked.clear()
    done = run("tasks", "pull", f"hub:ann/faulty@{revision}", "--task", "never")
    assert done.code == 1 and says in done.stderr, done.stderr
    assert done.stderr.startswith("chorus: ") and "Traceback" not in done.stderr
    assert api.http.get("/v1/tasks/never").status_code == 404
    loaded = [each for each in there.asked if "adapter_model" in each]
    assert bool(loaded) == (fault in (other_bytes, shorter))


def test_control_the_library_alone_takes_other_bytes(there: HubServer, tmp_path: Path) -> None:
    other_bytes(there.add("ann/control", adapter()))
    code = (
        "from chorus import hub\n"
        "hub._check_content = lambda *_: None\n"
        "print(len(hub.download('ann/control').content))"
    )
    environment = {**os.environ, "HF_ENDPOINT": there.url, "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        tethered([sys.executable, "-c", code]), env=environment, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) > 0


def test_a_body_that_breaks_off_is_fetched_again_but_not_for_ever(run: Command, there: HubServer) -> None:
    there.add("ann/broken", adapter())
    there.cut = 1
    assert run.tasks("pull", "hub:ann/broken")["version"] == 1
    there.cut = 100
    done = run("tasks", "pull", "hub:ann/broken", "--task", "never")
    there.cut = 0
    assert done.code == 1 and "cannot be exchanged with the hub" in done.stderr


def test_a_base_that_is_not_the_server_s_is_refused(run: Command, there: HubServer) -> None:
    files = {CONFIG: config_file(), WEIGHTS: weights_file()}
    there.add("ann/other", files)
    done = run("tasks", "pull", "hub:ann/other")
    assert done.code == 1
    assert "base_mismatch in base_model: ann/other was tuned on 'google/t5-v1_1-small'" in done.stderr
    # Said to be the same all the same; and a fingerprint in the card counts more than a name.
    assert (
        run.tasks("pull", "hub:ann/other", "--base-fingerprint", FINGERPRINT)["base_fingerprint"]
        == FINGERPRINT
    )
    for fingerprint, code in ((FINGERPRINT, 0), ("e" * 64, 1)):
        card = f"---\nchorus: {{base_fingerprint: {fingerprint}}}\n---\n"
        there.add("ann/carded", {**files, "README.md": card.encode()})
        done = run("tasks", "pull", "hub:ann/carded")
        assert done.code == code, done.stderr
    assert "base_mismatch in metadata.base_fingerprint" in done.stderr
    card = f"---\nchorus: {{base_fingerprint: {FINGERPRINT}, vocabulary_digest: {'ab' * 32}}}\n---\n"
    there.add("ann/words", {**files, "README.md": card.encode()})
    assert "was tuned with the vocabulary abababababab..." in run("tasks", "pull", "hub:ann/words").stderr
    there.add("ann/wide", {CONFIG: config_file(token_dim=5, base_model_name_or_path="tiny"),
                           WEIGHTS: weights_file(prompt(4, width=5))})  # fmt: skip
    assert "wrong_width in file" in run("tasks", "pull", "hub:ann/wide").stderr


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("google/t5-small", "Google/T5-small@main", True),
        ("google/t5-small", "ann/t5-small", False),
        ("/models/t5-small", "google/t5-small", True),
        ("/models/t5-small/", "t5-base", False),
    ],
)
def test_names_of_bases(one: str, other: str, same: bool) -> None:
    found = hub.HubAdapter("ann/a", b"", {}, base_model=one)
    model = ModelInfo(name=other, fingerprint="f", parameters=1, compute_dtype="float32", max_input_tokens=1,
                      max_new_tokens=1)  # fmt: skip
    if same:
        found.check_base(model)
    else:
        with pytest.raises(ModelMismatchError):
            found.check_base(model)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("pull", "hub:weather"), "'weather' is not a hub id"),
        (("pull", "hub:ann/a", "file.npy"), "goes to the server"),
        (("pull", "weather"), "Missing argument 'PATH'"),
        (("pull", "weather", "w.npy", "--task-index", "0"), "are for hub:... only"),
        (("push-hub", "weather", "ann/a@v1"), "leave @revision out"),
    ],
)
def test_words_that_do_not_go_together(run: Command, words: tuple[str, ...], says: str) -> None:
    done = run("tasks", *words)
    assert done.code != 0 and says in done.stderr, done.stderr


def test_without_the_library_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['huggingface_hub'] = None\n"
        "from chorus import hub, errors\n"
        "try: hub.download('ann/a')\n"
        "except errors.ConfigurationError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install '.[hub]'" in done.stdout
    assert issubclass(HubError, Exception)
