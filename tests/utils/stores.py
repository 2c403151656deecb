"""A store that fails as it is told to, and a fresh process's view of it."""

from __future__ import annotations

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from synque_select.encoders import embedding_cache
from synque_select.utils import remote_cache


class FlakyStore(MemoryFileSystem):
    """Keeps files in memory; each operation in `failing` raises its error."""

    protocol = "flaky"
    store: dict[str, object] = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    failing: dict[str, Exception] = {}  # noqa: RUF012
    cut = False  # whether an upload stops in the middle
    calls: list[str] = []  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        path = path.partition("@")[2] if "@" in path else path.removeprefix("flaky://")
        return MemoryFileSystem._strip_protocol(path)

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.failing:
            raise self.failing[name]

    def cat_file(self, path, start=None, end=None, **kwargs):
        self._called("cat_file")
        return super().cat_file(path, start, end, **kwargs)

    def get_file(self, rpath, lpath, *args, **kwargs):
        self._called("get_file")
        return super().get_file(rpath, lpath, *args, **kwargs)

    def put_file(self, lpath, rpath, *args, **kwargs):
        self._called("put_file")
        result = super().put_file(lpath, rpath, *args, **kwargs)
        if self.cut:
            content = super().cat_file(rpath)
            super().pipe_file(rpath, content[: len(content) // 2])
        return result

    def ls(self, path, detail=True, **kwargs):
        self._called("ls")
        return super().ls(path, detail, **kwargs)


def forget() -> None:
    """Act as another process: no store is open, nothing is remembered."""
    remote_cache._OPEN.clear()
    embedding_cache._open_store.cache_clear()


def reset() -> None:
    """Empty the store and let it work."""
    fsspec.register_implementation("flaky", FlakyStore, clobber=True)
    FlakyStore.store.clear()
    FlakyStore.pseudo_dirs[:] = [""]
    FlakyStore.failing.clear()
    FlakyStore.calls.clear()
    FlakyStore.cut = False
    forget()
