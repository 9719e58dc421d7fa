"""What only the embedded store promises: durability, several processes, and files it refuses."""

# ruff: noqa: ASYNC220, ASYNC221, ASYNC240 - nothing else runs on the loop meanwhile

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from midonet.errors import (
    DecodeError,
    MidoNetError,
    SchemaTooNewError,
    StoreLostError,
    UnavailableError,
    UserError,
)
from midonet.model.devices import Bridge
from midonet.model.ids import BridgeId
from midonet.nsdb import codec
from midonet.nsdb.sqlite import SqliteStore, follower
from midonet.nsdb.sqlite.options import StoreOptions
from midonet.nsdb.sqlite.schema import LAYOUT_VERSION
from midonet.nsdb.store import (
    Change,
    Create,
    Delete,
    ObjectChange,
    ObjectKey,
    PutState,
    Referrers,
    Table,
    TableChange,
    Update,
    WatchKey,
)

DEADLINE_S = 60.0

WRITER = """
import asyncio, sys
from pathlib import Path
from uuid import uuid4
from midonet.model.devices import Bridge
from midonet.nsdb.sqlite import SqliteStore
from midonet.nsdb.store import Create

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    await store.open()
    async def write():
        while True:
            bridge = Bridge(id=uuid4(), name="x" * 100)
            await store.transact([Create(bridge)])
            print(bridge.id, flush=True)
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(write())

asyncio.run(main())
"""

ECHO = """
import asyncio, sys
from pathlib import Path
from uuid import UUID
from midonet.model.devices import Bridge
from midonet.nsdb.sqlite import SqliteStore
from midonet.nsdb.store import Create

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    await store.open()
    loop = asyncio.get_running_loop()
    print("ready", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        await store.transact([Create(Bridge(id=UUID(line.strip())))])
    await store.close()

asyncio.run(main())
"""


@asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, StoreOptions(**options))
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "nsdb.db"


def bridge(name: str = "blue") -> Bridge:
    return Bridge(id=BridgeId(uuid4()), name=name)


class TestDurability:
    async def test_content_outlives_the_client(self, path: Path) -> None:
        blue = bridge()
        async with opened(path) as store:
            await store.transact([Create(blue)])
            await store.transact([PutState("t", "k", "v", blue.id, is_persistent=True)])
            await store.sequence("keys")
        async with opened(path) as store:
            found = await store.get(Bridge, blue.id)
            assert found is not None
            assert found.value == blue
            assert [entry.value for entry in await store.table("t")] == ["v"]
            assert await store.sequence("keys") == 2

    async def test_no_acknowledged_write_is_lost_when_the_process_is_killed(
        self, path: Path
    ) -> None:
        acknowledged: set[UUID] = set()
        for wanted in (1, 40, 200, 100):
            process = subprocess.Popen(
                [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
            )
            assert process.stdout is not None
            with process, process.stdout:
                for _ in range(wanted):
                    acknowledged.add(UUID(process.stdout.readline().strip()))
                os.kill(process.pid, signal.SIGKILL)
                for line in process.stdout:
                    if line.endswith("\n"):
                        acknowledged.add(UUID(line.strip()))
            async with opened(path) as store:
                stored = {one.value.id for one in await store.list_all(Bridge)}
                assert acknowledged <= stored
                await store.transact([Create(bridge())])
        assert len(acknowledged) >= 341


class TestProcesses:
    async def test_another_process_is_seen_by_its_notification(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """This client does not look by itself, however long the test takes."""
        monkeypatch.setattr(follower, "LOOK_INTERVAL_S", 3600.0)
        async with opened(path) as store:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                ECHO,
                str(path),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            assert process.stdin is not None
            assert process.stdout is not None
            watcher = store.watcher()
            try:
                async with asyncio.timeout(DEADLINE_S):
                    assert await process.stdout.readline() == b"ready\n"
                    for _ in range(30):
                        key = ObjectKey(Bridge, uuid4())
                        watcher.add([key])
                        assert await watcher.changes() == [ObjectChange(key, None)]
                        process.stdin.write(f"{key.object_id}\n".encode())
                        (change,) = await watcher.changes()
                        assert change.key == key
            finally:
                process.stdin.close()
                await process.wait()

    async def test_changes_are_found_without_notification(self, path: Path, tmp_path: Path) -> None:
        blue = bridge()
        async with opened(path) as store, opened(path) as other:
            watcher = store.watcher()
            key = ObjectKey(Bridge, blue.id)
            watcher.add([key])
            assert await watcher.changes() == [ObjectChange(key, None)]
            # Somebody removes the file by which clients wake each other.
            (tmp_path / "nsdb.db-notify").unlink()
            (tmp_path / "nsdb.db-notify").touch()
            await other.transact([Create(blue)])
            async with asyncio.timeout(DEADLINE_S):
                (change,) = await watcher.changes()
            assert change.key == key

    async def test_a_second_client_of_one_process_does_not_drop_its_locks(self, path: Path) -> None:
        bridges = [bridge(str(number)) for number in range(3)]
        async with opened(path) as store:
            await store.transact([Create(bridges[0])])
            async with opened(path) as second:
                await second.transact([Create(bridges[1])])
            # A process that thought itself alone would take the log away when it closes.
            subprocess.run(
                [sys.executable, "-c", ECHO, str(path)], input=b"", check=True, capture_output=True
            )
            assert path.with_name("nsdb.db-wal").exists()
            await store.transact([Create(bridges[2])])
        async with opened(path) as store:
            assert len(await store.list_all(Bridge)) == 3

    async def test_clients_may_create_the_file_at_the_same_time(self, path: Path) -> None:
        stores = [SqliteStore(path) for _ in range(6)]
        await asyncio.gather(*(store.open() for store in stores))
        blue = bridge()
        await stores[0].transact([Create(blue)])
        assert [await store.get(Bridge, blue.id) is not None for store in stores] == [True] * 6
        for store in stores:
            await store.close()

    async def test_a_watcher_too_far_behind_gets_the_difference(self, path: Path) -> None:
        blue, green, gone = bridge("blue"), bridge("green"), bridge("gone")
        async with opened(path) as store:
            await store.transact([Create(blue), Create(green), Create(gone)])
            await store.transact([PutState("t", "old", "v", blue.id, is_persistent=True)])
            watcher = store.watcher()
            keys = [ObjectKey(Bridge, one.id) for one in (blue, green, gone)]
            watcher.add([*keys, Table("t"), Referrers(Bridge, "inbound_filter_id", blue.id)])
            async with asyncio.timeout(DEADLINE_S):
                assert len(await watcher.changes()) == 5
            # The log no longer holds what happened to the objects.
            connection = sqlite3.connect(path)
            connection.executescript(
                f"""
                BEGIN IMMEDIATE;
                DELETE FROM object WHERE id = x'{gone.id.hex}';
                UPDATE object SET revision = 9000, version = 7 WHERE id = x'{blue.id.hex}';
                DELETE FROM state;
                DELETE FROM change;
                UPDATE meta SET value = 9000 WHERE name IN ('revision', 'history_floor');
                COMMIT;
                """
            )
            connection.close()
            seen: dict[WatchKey, Change] = {}
            async with asyncio.timeout(DEADLINE_S):
                while len(seen) < 3:
                    seen.update({change.key: change for change in await watcher.changes()})
            assert set(seen) == {keys[0], keys[2], Table("t")}
            assert seen[keys[2]] == ObjectChange(keys[2], None)
            assert seen[Table("t")] == TableChange(Table("t"), (("old", None),))

    async def test_the_log_is_kept_short(self, path: Path) -> None:
        blue = bridge()
        async with opened(path, history=10) as store:
            await store.transact([Create(blue)])
            for _ in range(22):
                await asyncio.gather(*(store.transact([Update(blue)]) for _ in range(50)))
        connection = sqlite3.connect(path)
        (count,) = connection.execute("SELECT count(*) FROM change").fetchone()
        connection.close()
        assert count < 200

    async def test_a_session_of_another_boot_is_dead(self, path: Path) -> None:
        owner = uuid4()
        async with opened(path) as store:
            await store.open_session(owner, timeout_s=3600)
            await store.transact([PutState("t", "k", "v", owner)])
        connection = sqlite3.connect(path)
        with connection:
            connection.execute("UPDATE session SET boot_id = 'another', deadline_s = 1e12")
        connection.close()
        async with opened(path) as store:
            assert await store.live_sessions() == frozenset()
            watcher = store.watcher()
            watcher.add([Table("t")])
            async with asyncio.timeout(DEADLINE_S):
                while await store.table("t"):
                    await watcher.changes()
            await store.open_session(owner)


class TestSchemas:
    async def test_an_object_of_a_newer_schema_is_read_but_not_rewritten(self, path: Path) -> None:
        blue = bridge()
        async with opened(path) as store:
            await store.transact([Create(blue)])
        _edit(
            path,
            "UPDATE object SET schema = ?, body = ?",
            (
                codec.SCHEMA_VERSION + 1,
                codec.encode(blue)[:-1] + b',"from_the_future":{"a":[1]}}',
            ),
        )
        async with opened(path) as store:
            found = await store.get(Bridge, blue.id)
            assert found is not None
            assert found.value == blue
            with pytest.raises(SchemaTooNewError):
                await store.transact([Update(blue)])
            await store.transact([Delete(Bridge, blue.id)])

    async def test_a_store_one_schema_ahead_is_usable(self, path: Path) -> None:
        async with opened(path):
            pass
        _edit(path, "UPDATE meta SET value = ? WHERE name = 'schema'", (codec.SCHEMA_VERSION + 1,))
        async with opened(path) as store:
            await store.transact([Create(bridge())])

    async def test_a_store_two_schemas_ahead_is_refused(self, path: Path) -> None:
        async with opened(path):
            pass
        _edit(path, "UPDATE meta SET value = ? WHERE name = 'schema'", (codec.SCHEMA_VERSION + 2,))
        await _assert_refused(path, SchemaTooNewError)

    async def test_a_newer_layout_is_refused(self, path: Path) -> None:
        async with opened(path):
            pass
        _edit(path, f"PRAGMA user_version = {LAYOUT_VERSION + 1}", ())
        await _assert_refused(path, SchemaTooNewError)

    async def test_changes_of_unknown_kinds_are_passed_over(self, path: Path) -> None:
        blue = bridge()
        async with opened(path) as store, opened(path) as other:
            watcher = store.watcher()
            watcher.add([ObjectKey(Bridge, blue.id)])
            async with asyncio.timeout(DEADLINE_S):
                await watcher.changes()
                _edit(
                    path,
                    "INSERT INTO change VALUES (1, 0, 'Hologram', x'00'), (1, 9, 'x', x'00')",
                    (),
                )
                _edit(path, "UPDATE meta SET value = 1 WHERE name = 'revision'", ())
                await other.transact([Create(blue)])
                (change,) = await watcher.changes()
            assert change.key == ObjectKey(Bridge, blue.id)

    async def test_a_corrupt_object_is_an_error_to_read_and_absent_to_watch(
        self, path: Path
    ) -> None:
        blue = bridge()
        async with opened(path) as store:
            await store.transact([Create(blue)])
        for body in (b"", b"\xff\xfe", b"{", b"[]", b'{"id":1}', b"[" * 100_000):
            _edit(path, "UPDATE object SET body = ?", (body,))
            async with opened(path) as store:
                with pytest.raises(DecodeError, match="Bridge"):
                    await store.get(Bridge, blue.id)
                watcher = store.watcher()
                key = ObjectKey(Bridge, blue.id)
                watcher.add([key])
                assert await watcher.changes() == [ObjectChange(key, None)]


def _edit(path: Path, statement: str, arguments: tuple[object, ...]) -> None:
    """Change the file as another program would."""
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement, arguments)
    connection.close()


@contextmanager
def _read_only(path: Path) -> Iterator[None]:
    """Make a file unwritable for a while. Modes do not bind root; a read-only mount does."""
    if os.geteuid() != 0:
        path.chmod(0o444)
        yield
        return
    directory = str(path.parent)
    subprocess.run(["mount", "--bind", directory, directory], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", directory], check=True)
        yield
    finally:
        subprocess.run(["umount", directory], check=True)


async def _assert_refused(path: Path, error: type[MidoNetError]) -> None:
    """Check that a store cannot be opened and that nothing changes, but for its own log."""
    before = path.read_bytes() if path.is_file() else None
    beside = _names_beside(path)
    store = SqliteStore(path)
    with pytest.raises(error):
        await store.open()
    await store.close()
    if before is not None:
        assert path.read_bytes() == before
    assert _names_beside(path) - {"nsdb.db-wal", "nsdb.db-shm"} == beside


def _names_beside(path: Path) -> set[str]:
    is_watchable = path.parent.is_dir() and path.parent != Path("/proc")
    return {one.name for one in path.parent.iterdir()} if is_watchable else set()


class TestFiles:
    @pytest.mark.parametrize(
        "content",
        [
            b"hello\n",
            b"\x00" * 4096,
            b"SQLite format 3\x00",
            b"SQLite format 3\x00" + b"\xff" * 500,
        ],
    )
    async def test_a_file_of_another_kind_is_refused(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        await _assert_refused(path, DecodeError)

    async def test_the_database_of_another_program_is_refused(self, path: Path) -> None:
        _edit(path, "CREATE TABLE cooking_recipes (name TEXT)", ())
        await _assert_refused(path, DecodeError)

    async def test_a_directory_is_refused(self, path: Path) -> None:
        path.mkdir()
        await _assert_refused(path, DecodeError)

    async def test_a_missing_directory_is_unavailable(self, path: Path) -> None:
        await _assert_refused(path / "nsdb.db", UnavailableError)

    async def test_a_place_that_cannot_be_written_is_unavailable(self) -> None:
        await _assert_refused(Path("/proc/nsdb.db"), UnavailableError)

    async def test_a_read_only_file_is_unavailable(self, path: Path) -> None:
        async with opened(path):
            pass
        with _read_only(path):
            await _assert_refused(path, UnavailableError)

    async def test_a_damaged_database_is_refused(self, path: Path) -> None:
        async with opened(path) as store:
            await store.transact([Create(bridge("x" * 1000)) for _ in range(200)])
        content = bytearray(path.read_bytes())
        content[8192:-8192] = b"\xa5" * (len(content) - 16384)
        path.write_bytes(content)
        await _assert_refused(path, DecodeError)

    async def test_a_truncated_database_is_refused(self, path: Path) -> None:
        async with opened(path) as store:
            await store.transact([Create(bridge("x" * 1000)) for _ in range(200)])
        path.write_bytes(path.read_bytes()[:20_000])
        await _assert_refused(path, DecodeError)

    @pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
    @pytest.mark.parametrize("is_replaced", [False, True])
    async def test_file_that_is_taken_away_is_noticed(
        self, path: Path, suffix: str, is_replaced: bool
    ) -> None:
        taken = path.with_name(path.name + suffix)
        async with opened(path) as store:
            await store.transact([Create(bridge())])
            if is_replaced:
                taken.with_name("other").write_bytes(taken.read_bytes())
                taken.with_name("other").rename(taken)
            else:
                taken.unlink()
            became = "replaced" if is_replaced else "removed"
            with pytest.raises(StoreLostError, match=f"{taken} was {became}"):
                await store.list_all(Bridge)
            with pytest.raises(StoreLostError):
                await store.transact([Create(bridge())])
            async with asyncio.timeout(DEADLINE_S):
                with pytest.raises(StoreLostError):
                    await store.wait_lost()
            if not is_replaced:
                taken.touch()  # what comes later is another file
            with pytest.raises(StoreLostError):
                await store.list_all(Bridge)

    async def test_directory_that_is_moved_away_is_noticed(self, tmp_path: Path) -> None:
        path = tmp_path / "here" / "nsdb.db"
        path.parent.mkdir()
        async with opened(path) as store:
            path.parent.rename(tmp_path / "there")
            async with asyncio.timeout(DEADLINE_S):
                with pytest.raises(StoreLostError, match="removed"):
                    await store.wait_lost()

    async def test_store_that_is_copied_is_not_lost(self, path: Path, tmp_path: Path) -> None:
        async with opened(path) as store:
            for number in range(3):
                await store.transact([Create(bridge(str(number)))])
                with (
                    closing(sqlite3.connect(path)) as source,
                    closing(sqlite3.connect(tmp_path / "copy")) as copy,
                ):
                    source.backup(copy)
            assert len(await store.list_all(Bridge)) == 3

    async def test_files_are_private_whatever_the_umask(self, path: Path) -> None:
        before = os.umask(0)
        try:
            async with opened(path) as store, opened(path) as other:
                await store.transact([Create(bridge())])
                assert len(await other.list_all(Bridge)) == 1
                found = {one.name: one.stat().st_mode & 0o777 for one in path.parent.iterdir()}
        finally:
            os.umask(before)
        assert found == dict.fromkeys(
            ("nsdb.db", "nsdb.db-wal", "nsdb.db-shm", "nsdb.db-notify"), 0o600
        )

    @pytest.mark.parametrize(("before", "after"), [(0o644, 0o600), (0o666, 0o660), (0o660, 0o660)])
    async def test_permissions_of_others_are_taken_away(
        self, path: Path, before: int, after: int
    ) -> None:
        async with opened(path):
            pass
        for one in path.parent.iterdir():
            one.chmod(before)
        async with opened(path) as store:
            await store.transact([Create(bridge())])
            assert {one.stat().st_mode & 0o777 for one in path.parent.iterdir()} == {after}

    @pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-notify"])
    async def test_links_are_not_followed(self, path: Path, tmp_path: Path, suffix: str) -> None:
        victim = tmp_path / "victim"
        victim.write_text("kept")
        path.with_name(path.name + suffix).symlink_to(victim)
        with pytest.raises(UserError, match="symbolic link"):
            await SqliteStore(path).open()
        assert victim.read_text() == "kept"

    async def test_directory_that_everybody_may_write_to_is_refused(self, path: Path) -> None:
        path.parent.chmod(0o777)
        with pytest.raises(UserError, match="everybody"):
            await SqliteStore(path).open()
        path.parent.chmod(0o1777)
        async with opened(path):
            pass
        path.parent.chmod(0o700)

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")
    @pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-notify"])
    async def test_files_of_a_stranger_are_refused(self, path: Path, suffix: str) -> None:
        planted = path.with_name(path.name + suffix)
        planted.touch()
        os.chown(planted, 65534, -1)
        with pytest.raises(UserError, match="belongs to user 65534"):
            await SqliteStore(path).open()

    async def test_an_empty_file_becomes_a_store(self, path: Path) -> None:
        path.touch()
        async with opened(path) as store:
            await store.transact([Create(bridge())])

    async def test_the_log_of_a_deleted_database_is_not_replayed(self, path: Path) -> None:
        log = path.with_name("nsdb.db-wal")
        async with opened(path) as store:
            await store.transact([Create(bridge())])
            kept = log.read_bytes()
        path.unlink()
        log.write_bytes(kept)
        async with opened(path) as store:
            assert await store.list_all(Bridge) == []

    async def test_a_name_with_odd_characters_is_a_file_name(self, tmp_path: Path) -> None:
        path = tmp_path / "a b?mode=memory#%41.db"
        async with opened(path) as store:
            await store.transact([Create(bridge())])
        assert path.is_file()
