"""A working directory above the limit of `ray job submit`: how it is uploaded, and the line that the runbook quotes."""

import asyncio
import re
import threading
from contextlib import contextmanager

import aiohttp.web
import pytest
from ray._private import ray_constants
from ray.dashboard.modules.dashboard_sdk import SubmissionClient
from ray.dashboard.modules.job.job_head import JobHead

from tests.unit.cluster.manifests import CLUSTER

LIMIT = 1 << 20  # of the server below; that of Ray would take 100 MiB of memory twice


@contextmanager
def head(limit):
    """Where the dashboard of a head takes packages, with its own handler."""
    app = aiohttp.web.Application(client_max_size=limit)
    app.router.add_get("/api/packages/{protocol}/{package_name}", nothing_yet)
    app.router.add_put("/api/packages/{protocol}/{package_name}", lambda request: JobHead.upload_package(None, request))
    loop, runner = asyncio.new_event_loop(), aiohttp.web.AppRunner(app)
    loop.run_until_complete(runner.setup())
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
    loop.run_until_complete(site.start())
    port = runner.addresses[0][1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(runner.cleanup())
        loop.close()


async def nothing_yet(request):
    return aiohttp.web.Response(status=404)


def test_a_working_directory_above_the_limit_is_refused_as_the_runbook_quotes(tmp_path):
    with (tmp_path / "film.mp4").open("wb") as file:
        file.truncate(LIMIT)  # packages are not compressed, so holes count
    with head(LIMIT) as address:
        client = SubmissionClient(address)
        with pytest.raises(RuntimeError) as refused:
            client._upload_working_dir_if_needed({"working_dir": str(tmp_path)})
        (tmp_path / ".rayignore").write_text("film.mp4\n")
        with pytest.raises(RuntimeError) as passed:  # what is small is taken; no Ray is there to keep it
            client._upload_working_dir_if_needed({"working_dir": str(tmp_path)})
    text = (CLUSTER / "README.md").read_text(encoding="utf-8")
    [quoted] = re.findall(r"^\| (.*) \(from `ray job submit`\) \|", text, re.MULTILINE)
    assert quoted in str(refused.value)
    assert quoted not in str(passed.value)


def test_the_limit_is_the_one_that_the_runbook_names():
    assert ray_constants.DASHBOARD_CLIENT_MAX_SIZE == 100 << 20
    assert "Ray takes working directories up to 100 MiB" in (CLUSTER / "README.md").read_text(encoding="utf-8")
