"""Public data sets: what there is, from whom, under which licence, and how to get it.

    datasets.yaml   the sets
    transfer.py     one file over HTTP: resume, retries, errors
    fetch.py        one set: checksums, unpacking, what was fetched

Nothing here goes to the network but `fetch.fetch_dataset`, when a user asks for it.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from clinical_data.errors import UsageError


class ListedFile(BaseModel):
    """A file of a set whose publisher gives no list of checksums.

    Attributes:
        path: name on disk, below the set's folder.
        remote: name below the set's base address, where it differs.
        sha256: known checksum; None: it is recorded at the first fetch and held to from then on.
        size: bytes, where known.
        unpack: whether it is a zip archive to be opened beside itself.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    remote: str = ""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    size: int | None = Field(default=None, alias="bytes")
    unpack: bool = False


class Dataset(BaseModel):
    """A public data set.

    Attributes:
        name: as `wardstar data fetch` takes it.
        title, publisher, licence, version, page, supplies: for people.
        megabytes: about how much is downloaded; None when unknown.
        import_command: how to import it; `{out}` stands for the folder fetched into.
        base: address below which the publisher keeps the files; empty for a set that must be applied for.
        checksums: name of the publisher's list of sha256 sums, or empty.
        include: shell patterns of the names in that list that are wanted.
        files: the files, where there is no such list.
        also_from: hosts that the publisher redirects to.
        apply: how to apply for a set that is not open; empty for an open one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    publisher: str
    licence: str
    version: str
    page: str
    supplies: str
    import_command: str = Field(alias="import")
    megabytes: float | None = None
    base: str = ""
    checksums: str = ""
    include: tuple[str, ...] = ()
    files: tuple[ListedFile, ...] = ()
    also_from: tuple[str, ...] = ()
    apply: str = ""

    @model_validator(mode="after")
    def _open_or_applied_for(self) -> Dataset:
        if self.open == bool(self.apply) or (self.open and bool(self.checksums) == bool(self.files)):
            raise ValueError(f"{self.name}: either open, with a list of checksums or of files, or to be applied for")
        return self

    @property
    def open(self) -> bool:
        """Says whether anybody may download it."""
        return bool(self.base)

    @property
    def download_megabytes(self) -> float | None:
        """About how much is downloaded, in 10^6 bytes; None when unknown."""
        sizes = [f.size for f in self.files]
        if sizes and None not in sizes:
            return round(sum(s for s in sizes if s is not None) / 1e6, 1)
        return self.megabytes


@cache
def load_datasets() -> tuple[Dataset, ...]:
    """Returns the sets of the manifest, in its order."""
    text = (files("clinical_data.datasets") / "datasets.yaml").read_text(encoding="utf-8")
    return tuple(Dataset.model_validate(one) for one in yaml.safe_load(text)["sets"])


def find_dataset(name: str) -> Dataset:
    """Returns a set by name.

    Raises:
        UsageError: no such set.
    """
    found = next((one for one in load_datasets() if one.name == name), None)
    if found is None:
        raise UsageError(f"no data set named {name}", hint="`wardstar data list` names them")
    return found
