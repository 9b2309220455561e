"""What was not synced is lost: an acknowledged version must not be among it."""

from contextlib import closing
from pathlib import Path

import pytest

from prompts_store import PromptStore
from prompts_store.blobs import Files, LocalBlobs
from prompts_store.testing import FakeClock, PowerCutFiles, example_prompt


def _publish_then_cut(folder: Path, files: PowerCutFiles) -> list[str]:
    """Publish, lose power, start again: the kinds of problems that the check then finds."""
    with closing(PromptStore.open(folder, files=files)) as store:
        for seed in (1, 2, 3):
            store.publish("acme", "sst2", *example_prompt(seed))
        files.cut()
    with closing(PromptStore.open(folder)) as store:
        report = store.check()
        assert report.versions == 3
        return [problem.kind for problem in report.problems]


def test_acknowledged_versions_survive_a_power_cut(tmp_path: Path) -> None:
    assert _publish_then_cut(tmp_path, PowerCutFiles()) == []


@pytest.mark.parametrize(("lie", "kind"), [("sync", "corrupt_blob"), ("sync_folder", "missing_blob")])
def test_control_without_a_sync_they_do_not(tmp_path: Path, lie: str, kind: str) -> None:
    found = _publish_then_cut(tmp_path, PowerCutFiles(frozenset({lie})))
    assert found == ["other_store", *[kind] * 3]  # the folders' ids are lost as well


def test_a_blob_that_another_upload_renamed_but_did_not_sync_is_synced(tmp_path: Path) -> None:
    """The first upload dies between rename and folder sync; the second finds the blob and must sync."""
    values, manifest = example_prompt(1)

    class DiesBeforeTheFolder(PowerCutFiles):
        dies = False

        def sync_folder(self, path: Path) -> None:
            if self._renamed and self.dies:
                self.dies = False
                raise KeyboardInterrupt
            super().sync_folder(path)

    files = DiesBeforeTheFolder()
    with closing(PromptStore.open(tmp_path, files=files)) as store:
        files.dies = True
        with pytest.raises(KeyboardInterrupt):
            store.publish("acme", "sst2", values, manifest)
        assert store.check().orphans == 1
        store.publish("acme", "sst2", values, manifest)
        files.cut()
    with closing(PromptStore.open(tmp_path)) as store:
        assert store.check().clean
        assert store.values(manifest.digest).tobytes() == values.tobytes()


def test_the_bytes_are_synced_before_the_name_is_given(tmp_path: Path) -> None:
    calls: list[str] = []

    class Noting(Files):
        def sync(self, descriptor: int) -> None:
            calls.append("sync")
            super().sync(descriptor)

        def rename(self, source: Path, target: Path) -> None:
            calls.append("rename")
            super().rename(source, target)

        def sync_folder(self, path: Path) -> None:
            calls.append("sync_folder")
            super().sync_folder(path)

    blobs = LocalBlobs(tmp_path, files=Noting())
    calls.clear()
    blobs.put("ab" * 32, b"content", now=FakeClock()())
    assert calls == ["sync_folder", "sync", "rename", "sync_folder"]
