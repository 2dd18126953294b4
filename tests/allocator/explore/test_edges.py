"""What can go wrong beneath an open page, and what it writes."""

import re
import sqlite3
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.allocator.explore.conftest import Serve
from tests.helpers import run

if TYPE_CHECKING:
    from playwright.sync_api import Page

Visit = Callable[[str], "Page"]


def execute(table: Path, *statements: str) -> None:
    connection = sqlite3.connect(table)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_a_table_that_changes_is_read_again_in_every_tab(visit: Visit, serve: Serve) -> None:
    served = serve("--target", "1.2")
    page = visit(served.address)
    other = visit(served.address.replace("target=1.2", "target=2"))
    assert "--target 2" in other.locator("#command").inner_text()
    assert "--target 1.2" in page.locator("#command").inner_text()
    execute(served.table, "DELETE FROM member WHERE name = 'coffee'")
    page.get_by_role("alert").filter(has_text="run.db has changed since the page read it.").wait_for()
    assert page.locator("#count").inner_text() == "5 of 5 images"
    page.get_by_role("button", name="Read it again").click()
    page.get_by_text("The table was read again.").wait_for()
    page.locator("#count", has_text="4 of 4 images").wait_for()
    assert "--target 1.2" in page.locator("#command").inner_text()
    other.get_by_text("The table was read again in another tab.").wait_for()
    other.locator("#count", has_text="4 of 4 images").wait_for()
    served.table.unlink()
    page.get_by_role("alert").filter(has_text="run.db is gone").wait_for()
    page.get_by_role("button", name="Read it again").click()
    page.get_by_role("alert").filter(has_text="there is no such table").wait_for()
    assert page.locator("#count").inner_text() == "4 of 4 images"


def test_a_server_that_ended_leaves_the_command_that_goes_on(visit: Visit, serve: Serve) -> None:
    served = serve("--target", "1.2", "--aggregate", "pixels")
    page = visit(served.address)
    served.stop()
    words = f"allocator explore {served.table} --target 1.2 --aggregate pixels"
    page.get_by_role("alert").filter(has_text=words).wait_for()
    page.get_by_role("checkbox", name="webp").first.uncheck()
    page.wait_for_timeout(300)
    page.get_by_role("alert").filter(has_text="The connection to `allocator explore` is closed.").wait_for()


def test_a_missing_bitstream_is_encoded_again_or_reported(visit: Visit, serve: Serve, photos: Path) -> None:
    served = serve("--target", "1.2")
    execute(served.table, "DELETE FROM bitstream")
    page = visit(served.root + "#target=1.2&view=image&image=coffee")
    page.locator("#decoded[src]").wait_for()
    execute(served.table, "UPDATE point SET fingerprint = fingerprint || 'old'")
    again = visit(served.root + "#target=1.2&view=image&image=rocket")
    again.get_by_role("button", name="Read it again").click()
    again.locator("#waiting", has_text="the table keeps no bitstreams; build it again").wait_for()
    assert again.locator("#decoded[src]").count() == 0
    assert "proven optimal" in again.locator("#certificate").inner_text()


@pytest.mark.parametrize("what", ["files", "submission-bare", "report"])
def test_what_it_writes_is_what_the_commands_write(visit: Visit, serve: Serve, tmp_path: Path, what: str) -> None:
    served = serve("--target", "1.2", "--forbid", "coffee=webp")
    page = visit(served.address)
    place = tmp_path / ("page.html" if what == "report" else "out")
    page.get_by_label("what").select_option(what)
    page.get_by_label("to", exact=True).fill(str(place))
    page.get_by_role("button", name="Write").click()
    page.locator("#job", has_text=re.compile(r"^(?!Writing).*out|page\.html: ")).wait_for()
    options = ["-t", "1.2", "--forbid", "coffee=webp"]
    if what == "files":
        assert "5 files" in page.locator("#job").inner_text()
        assert run("export", served.table, *options, "--out", tmp_path / "by-command").code == 0
        names = sorted(path.name for path in place.iterdir())
        assert len(names) == 6
        for name in names:
            assert (place / name).read_bytes() == (tmp_path / "by-command" / name).read_bytes()
        (place / "coffee.jpg").write_bytes(b"mine")
        page.get_by_role("button", name="Write").click()
        page.locator("#job", has_text="is in the way").wait_for()
    elif what == "report":
        assert "http" not in re.sub(r"<script>.*?</script>", "", place.read_text(), flags=re.DOTALL)
    else:
        assert run("submit", served.table, *options, "--no-decoder", "--out", tmp_path / "by-command").code == 0
        with zipfile.ZipFile(place / "bs.zip") as own, zipfile.ZipFile(tmp_path / "by-command" / "bs.zip") as other:
            assert own.namelist() == other.namelist()
            assert all(own.read(name) == other.read(name) for name in own.namelist())


def test_without_the_extra_it_gives_one_sentence(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "allocator.explore.server", raising=False)
    ran = run("explore", table)
    assert ran.code == 2
    assert "The page needs a server: pip install 'clic-allocator[explore]'." in ran.err
