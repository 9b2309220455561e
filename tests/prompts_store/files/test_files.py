import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from prompts_store import PromptStore
from prompts_store.errors import ConflictError, CorruptError, InvalidError, NotFoundError, StoreError
from prompts_store.files.records import DataFile
from prompts_store.testing import FakeClock, example_file, file_bytes
from tests.memory import peak_bytes

SPEC = {"base_fingerprint": "base"}
ABSENT = "file-" + "0" * 24


def upload(store: PromptStore, content: bytes, name: str = "train.jsonl", tenant: str = "acme") -> DataFile:
    return example_file(store, content, name=name, tenant=tenant)


def kept(tmp_path: Path) -> list[str]:
    """The names of the contents that are really there."""
    folder = tmp_path / "data" / "files"
    return sorted(path.name for path in folder.glob("??/*")) + sorted(
        path.name for path in (folder / "incoming").iterdir()
    )


def test_a_file_is_there_as_it_was_written(store: PromptStore, clock: FakeClock) -> None:
    with store.write_file("acme", "train.jsonl", created_by="ann", max_bytes=10) as writer:
        writer.write(b"hello")
        writer.write(b"")
        writer.write(b" you!")
        assert writer.size_bytes == 10
        file = writer.commit()
    assert re.fullmatch(r"file-[0-9a-f]{24}", file.id)
    digest = hashlib.sha256(b"hello you!").hexdigest()
    assert file == DataFile(file.id, "acme", "train.jsonl", 10, digest, clock(), "ann")
    assert store.get_file("acme", file.id) == file
    assert file_bytes(store, "acme", file.id) == b"hello you!"
    assert store.check().clean and store.check().files == 1


def test_an_empty_file_is_a_file(store: PromptStore) -> None:
    file = upload(store, b"")
    assert (file.size_bytes, file_bytes(store, "acme", file.id)) == (0, b"")


def test_leaving_without_commit_leaves_nothing(disk_store: PromptStore, tmp_path: Path) -> None:
    with disk_store.write_file("acme", "a", max_bytes=10) as writer:
        writer.write(b"half")
        assert disk_store.check().temporary_files == 1
    assert kept(tmp_path) == []
    with pytest.raises(ZeroDivisionError), disk_store.write_file("acme", "a", max_bytes=10) as writer:
        raise ZeroDivisionError
    assert kept(tmp_path) == []
    assert disk_store.list_files("acme").items == ()


def test_a_writer_is_used_up_by_its_commit(store: PromptStore) -> None:
    with store.write_file("acme", "a", max_bytes=10) as writer:
        writer.commit()
        with pytest.raises(RuntimeError):
            writer.write(b"more")
        with pytest.raises(RuntimeError):
            writer.commit()
    with store.write_file("acme", "a", max_bytes=10) as writer:
        pass
    with pytest.raises(RuntimeError):
        writer.commit()
    assert len(store.list_files("acme").items) == 1


def test_too_large_is_said_before_it_is_written(disk_store: PromptStore, tmp_path: Path) -> None:
    with (
        pytest.raises(InvalidError) as caught,
        disk_store.write_file("acme", "a", max_bytes=10) as writer,
    ):
        writer.write(b"123456789")
        assert writer.size_bytes == 9
        writer.write(b"01")
    assert (caught.value.code, caught.value.field) == ("file_too_large", "file")
    assert "10 bytes" in caught.value.message
    assert kept(tmp_path) == []


def test_equal_bytes_are_stored_once_and_stay_until_the_last_file_goes(
    disk_store: PromptStore, clock: FakeClock, tmp_path: Path
) -> None:
    first, second = upload(disk_store, b"same"), upload(disk_store, b"same", tenant="other")
    assert first.id != second.id and kept(tmp_path) == [first.sha256]
    disk_store.delete_file("acme", first.id)
    clock.advance(100)
    assert disk_store.collect(grace_seconds=10).files == 0
    assert file_bytes(disk_store, "other", second.id) == b"same"
    disk_store.delete_file("other", second.id)
    assert disk_store.collect(grace_seconds=10).files == 0
    clock.advance(11)
    report = disk_store.collect(grace_seconds=10)
    assert (report.files, report.freed_bytes) == (1, 4)
    assert kept(tmp_path) == [] and disk_store.check().clean


def test_uploaded_again_within_the_grace_period_it_stays(store: PromptStore, clock: FakeClock) -> None:
    first = upload(store, b"same")
    store.delete_file("acme", first.id)
    clock.advance(100)
    second = upload(store, b"same")
    assert store.collect(grace_seconds=0).files == 0
    assert file_bytes(store, "acme", second.id) == b"same"


@pytest.mark.parametrize("file_id", [ABSENT, "file-1", "", "../etc", "job-" + "0" * 24, ABSENT + "\n"])
def test_absent_malformed_and_foreign_ids_answer_alike(store: PromptStore, file_id: str) -> None:
    theirs = upload(store, b"theirs", tenant="other").id
    for read in (store.get_file, store.delete_file, store.local_file):
        codes = []
        for wrong in (file_id, theirs):
            with pytest.raises(NotFoundError) as caught:
                read("acme", wrong)
            codes.append((caught.value.code, caught.value.field))
        assert codes == [("unknown_file", "file")] * 2


def test_a_deleted_file_is_gone_at_once(store: PromptStore) -> None:
    file = upload(store, b"x")
    store.delete_file("acme", file.id, deleted_by="ann")
    for read in (store.get_file, store.delete_file, store.local_file):
        with pytest.raises(NotFoundError):
            read("acme", file.id)
    assert store.list_files("acme").items == ()


def test_lists_are_newest_first_in_pages(store: PromptStore) -> None:
    made = [upload(store, bytes([number]), name=f"{number}.csv") for number in range(7)]
    upload(store, b"theirs", tenant="other")
    store.delete_file("acme", made[3].id)
    expected = [file for file in reversed(made) if file is not made[3]]
    found: list[DataFile] = []
    cursor = None
    while True:
        page = store.list_files("acme", limit=2, cursor=cursor)
        found += page.items
        if (cursor := page.next_cursor) is None:
            break
        # A file that comes meanwhile is on a page before; one that goes takes no other along.
        upload(store, b"new", name="new.csv")
    assert found == expected


def test_lists_by_purpose_and_oldest_first(store: PromptStore) -> None:
    made = []
    for purpose in ("fine-tune", "batch", "batch"):
        with store.write_file("acme", "a", max_bytes=1, purpose="user_data") as writer:
            writer.purpose = purpose  # type: ignore[assignment]
            made.append(writer.commit())
    assert [file.purpose for file in made] == ["fine-tune", "batch", "batch"]
    assert store.get_file("acme", made[1].id) == made[1]
    assert upload(store, b"").purpose == "fine-tune", "unless said otherwise"
    assert store.list_files("acme", purpose="batch").items == (made[2], made[1])
    page = store.list_files("acme", purpose="batch", limit=1, oldest_first=True)
    assert page.items == (made[1],)
    rest = store.list_files("acme", limit=1, cursor=page.next_cursor, purpose="batch", oldest_first=True)
    assert (rest.items, rest.next_cursor) == ((made[2],), None)


def test_a_cursor_outlives_the_file_that_it_names_but_is_no_other_tenants(store: PromptStore) -> None:
    made = [upload(store, bytes([number])) for number in range(3)]
    cursor = store.list_files("acme", limit=1).next_cursor
    store.delete_file("acme", made[2].id)
    assert store.list_files("acme", cursor=cursor).items == (made[1], made[0])
    for tenant, wrong in (("other", cursor), ("acme", "nonsense")):
        with pytest.raises(InvalidError) as caught:
            store.list_files(tenant, cursor=wrong)
        assert caught.value.code == "invalid_cursor"


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", " ", "a/b", "../x", "a\\b", "a\nb", "a\0", "\x1b[31m", "\ud800", "x" * 256, 5, None],
)
def test_bad_names_are_refused_and_nothing_is_made(
    disk_store: PromptStore, tmp_path: Path, name: str
) -> None:
    with pytest.raises(InvalidError) as caught, disk_store.write_file("acme", name, max_bytes=10):
        pytest.fail("a bad name was taken")
    assert (caught.value.code, caught.value.field) == ("invalid_file_name", "name")
    assert caught.value.message.isprintable()
    assert kept(tmp_path) == []


@pytest.mark.parametrize("name", ["train set (1).jsonl", ".hidden", "données.tsv", "x" * 255, "%s{}'\""])
def test_names_are_only_words(store: PromptStore, name: str) -> None:
    file = upload(store, b"x", name=name)
    assert store.get_file("acme", file.id).name == name


def test_a_file_that_an_unfinished_job_learns_from_stays(store: PromptStore) -> None:
    file = upload(store, b"rows")
    job = store.create_job("acme", "tuning", SPEC, files={"data.train.file": file.id})
    with pytest.raises(ConflictError) as caught:
        store.delete_file("acme", file.id)
    assert (caught.value.code, caught.value.field) == ("file_in_use", "file")
    assert job.id in caught.value.message
    store.cancel_job("acme", job.id)
    store.delete_file("acme", file.id)
    with pytest.raises(ConflictError) as caught:
        store.resume_job("acme", job.id)
    assert caught.value.code == "file_deleted" and file.id in caught.value.message


def _lose(path: Path) -> None:
    path.unlink()


def _swap_two_bytes(path: Path) -> None:
    path.write_bytes(b"rosw")


@pytest.mark.parametrize(("damage", "kind"), [(_lose, "missing_file"), (_swap_two_bytes, "corrupt_file")])
def test_damage_is_found_and_mended_by_uploading_again(
    disk_store: PromptStore, damage: Callable[[Path], None], kind: str
) -> None:
    file = upload(disk_store, b"rows")
    with disk_store.local_file("acme", file.id) as path:
        damage(path)
    problems = disk_store.check(repair=True).problems
    assert [(problem.kind, problem.where, problem.repaired) for problem in problems] == [
        (kind, file.sha256, False)
    ]
    upload(disk_store, b"rows")
    assert disk_store.check().clean
    assert file_bytes(disk_store, "acme", file.id) == b"rows"


def test_missing_and_short_content_is_told(disk_store: PromptStore) -> None:
    file = upload(disk_store, b"rows")
    with disk_store.local_file("acme", file.id) as path:
        path.write_bytes(b"ro")
    with pytest.raises(CorruptError, match="has 2 bytes, not 4") as caught:
        disk_store.local_file("acme", file.id)
    assert caught.value.code == "corrupt_file"
    path.unlink()
    with pytest.raises(CorruptError, match="is missing"):
        disk_store.local_file("acme", file.id)


def test_what_dead_uploads_left_goes_and_what_living_ones_write_stays(
    disk_store: PromptStore, clock: FakeClock, tmp_path: Path
) -> None:
    incoming = tmp_path / "data" / "files" / "incoming"
    (incoming / f"{int(clock().timestamp() * 1000)}-{'0' * 16}").write_bytes(b"dead")
    with disk_store.write_file("acme", "slow.csv", max_bytes=100) as writer:
        writer.write(b"slow")
        clock.advance(86_400)
        assert disk_store.collect(grace_seconds=60).temporary_files == 1
        writer.write(b" but alive")
        file = writer.commit()
    assert file_bytes(disk_store, "acme", file.id) == b"slow but alive"
    assert disk_store.check().temporary_files == 0


def test_content_that_no_row_names_goes(disk_store: PromptStore, clock: FakeClock, tmp_path: Path) -> None:
    contents = disk_store._contents
    with contents.writer(clock()) as writer:
        writer.write(b"orphan")
        contents.keep(writer, writer.seal(clock()))
    assert disk_store.check().orphans == 1 and disk_store.check().clean
    clock.advance(10)
    assert disk_store.collect(grace_seconds=11).files == 0
    assert disk_store.collect(grace_seconds=10).files == 1
    assert kept(tmp_path) == []


def test_many_contents_are_collected_in_batches(disk_store: PromptStore, clock: FakeClock) -> None:
    files = [upload(disk_store, f"content {number}".encode()) for number in range(103)]
    for file in files[:102]:
        disk_store.delete_file("acme", file.id)
    clock.advance(1)
    assert disk_store.collect(grace_seconds=0, allow_mass_removal=True).files == 102
    assert disk_store.check().files == 1 and disk_store.check().clean


def test_a_large_file_is_never_in_memory(disk_store: PromptStore) -> None:
    """Neither on the way in, nor when it is checked. The control, reading it whole, is seen."""
    chunk = bytes(1 << 20)

    def send() -> None:
        with disk_store.write_file("acme", "large.csv", max_bytes=1 << 30) as writer:
            for _ in range(32):
                writer.write(chunk)
            writer.commit()

    assert peak_bytes(send) < 4 << 20
    assert peak_bytes(disk_store.check) < 4 << 20
    (file,) = disk_store.list_files("acme").items
    assert file.size_bytes == 32 << 20
    assert peak_bytes(lambda: file_bytes(disk_store, "acme", file.id)) > 4 << 20


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "files").write_bytes(b"a file")
    with pytest.raises(StoreError, match="data folder") as caught:
        PromptStore.open(tmp_path / "data")
    assert caught.value.code == "store_unavailable"


def test_a_store_in_memory_leaves_no_folder_behind() -> None:
    store = PromptStore.in_memory()
    with store.local_file("acme", upload(store, b"x").id) as path:
        folder = path.parents[1]
    assert folder.exists()
    store.close()
    assert not folder.exists()
