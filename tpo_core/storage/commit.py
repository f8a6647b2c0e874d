"""A folder of results counts only once it is committed: `_SUCCESS` is written last, and readers look for it.

Locally a commit is: sync all files, write `_SUCCESS`, rename the staging folder. On S3: upload all files, then
`_SUCCESS`.
"""

import glob
import os
import shutil
from pathlib import Path

from tpo_core.errors import TpoError
from tpo_core.storage import local
from tpo_core.storage import uri as uris

SUCCESS = "_SUCCESS"


def is_committed(uri: str | Path) -> bool:
    """True if the folder carries `_SUCCESS`; a folder without it is to be ignored."""
    return uris.exists(uris.join(uri, SUCCESS))


def commit(staging: str | Path, uri: str | Path) -> None:
    """Make the local folder `staging` the committed folder `uri`; `staging` is gone afterwards.

    What lies at `uri` without `_SUCCESS` is replaced. TpoError when a committed folder is there already, or the disk
    is full; then nothing new counts as committed and `staging` still holds the work.
    """
    staging, target = Path(staging), str(uri)
    assert staging.is_dir(), f"nothing staged at {staging}"
    if is_committed(target):
        raise TpoError(f"{target} is committed already: delete it first if it is to be made again")
    if uris.exists(target):
        uris.delete(target)
    mark = staging / SUCCESS
    with local.disk_full_told(staging):
        try:
            local.sync_tree(staging)
            local.write_bytes(str(mark), b"")
            if uris.is_local(target):
                _rename(staging, local.to_path(target))
            else:
                _upload(staging, target)
        except BaseException:
            mark.unlink(missing_ok=True)
            raise


def fetch(uri: str | Path) -> Path:
    """A local folder with the content of a committed one: itself if local, else a copy in the scratch folder.

    The copy is made once a machine, however many processes ask, and committed itself, so that an interrupted download
    is never taken for the whole. It is named after what a listing tells of the content: where a folder was deleted and
    made again, the copy of the old one is not taken for it.
    """
    if uris.is_local(uri):
        return local.to_path(str(uri))
    from tpo_core.storage import s3  # boto3 takes 0.3 s to import, and most runs are local

    if not is_committed(uri):
        raise FileNotFoundError(f"{uri} is not committed")
    copy = _copy(str(uri), uris.tree_stamp(uri)[:16])
    with local.locked(copy):
        if not is_committed(copy):
            aside = copy.with_name(f"{copy.name}.partial")
            if aside.exists():
                shutil.rmtree(aside)
            with local.disk_full_told(aside):
                s3.download_tree(str(uri), aside)
                (aside / SUCCESS).unlink()
            commit(aside, copy)
    return copy


def forget_copies(uri: str | Path) -> None:
    """Delete what `fetch` has left on this machine of a remote folder, whatever its content was."""
    pattern = _copy(str(uri), "*")
    for copy in pattern.parent.glob(f"{glob.escape(pattern.name.removesuffix('*'))}*"):
        shutil.rmtree(copy)


def _copy(uri: str, stamp: str) -> Path:
    from tpo_core.storage import s3  # boto3 takes 0.3 s to import, and most runs are local

    bucket, key = s3.split(uri)
    return uris.scratch_dir() / "fetched" / bucket / f"{key}@{stamp}"


def _rename(staging: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(staging, target)
    local.sync(target.parent)


def _upload(staging: Path, target: str) -> None:
    from tpo_core.storage import s3  # boto3 takes 0.3 s to import, and most runs are local

    s3.upload_tree(staging, target, last=SUCCESS)
    shutil.rmtree(staging)
