"""The main workflow without POSIX: without its modules, its signals, and permission for links, as on Windows."""

import os
import subprocess
import sys
from pathlib import Path

WITHOUT_POSIX = """
import os, signal, sys
import platformdirs, psutil  # which choose their modules by sys.platform

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name in ("resource", "fcntl", "pwd", "grp", "termios", "tty", "pty", "syslog"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Nowhere())
for name in ("resource", "fcntl", "pwd", "grp", "termios"):
    sys.modules.pop(name, None)
for name in ("killpg", "getpgid", "setsid", "sched_getaffinity", "sched_setaffinity", "fork"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("pthread_sigmask", "SIGKILL", "SIGHUP", "alarm"):
    if hasattr(signal, name):
        delattr(signal, name)

def refuse(*arguments, **options):
    raise OSError("A required privilege is not held by the client")

os.symlink = refuse
"""
JOB = """
import sys
from pathlib import Path
from allocator.cli import main

def run(*arguments):
    sys.argv = ["allocator", *map(str, arguments)]
    try:
        main()
    except SystemExit as left:
        assert not left.code, (arguments, left.code)

if __name__ == "__main__":
    photos, out = map(Path, sys.argv[1:])
    build = ("tables", "build", photos, "-c", "webp", "-c", "jpeg", "-m", "psnr", "-j", 1)
    run(*build, "-o", out / "run.db")
    run("solve", out / "run.db", "--target", "1.5")
    run("submit", out / "run.db", "--target", "1.5", "--no-decoder", "-o", out / "entry")
    run("optimize", photos, "--budget", "30%", "-c", "webp", "-m", "psnr", "-j", 1, "-o", out / "web")
    run("decode", next((out / "web").rglob("*.webp")), "-o", out / "decoded.png")
    run("encode", photos / "rocket.png", "-c", "po-dkic", "-l", "2", "-o", out / "rocket.po-dkic")
    run("decode", out / "rocket.po-dkic", "-o", out / "rocket.png")
    import allocator.complexity, codec.command, submissions.decode, submissions.verify
"""


def test_the_main_workflow_does_not_need_posix(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_POSIX)
    (tmp_path / "job.py").write_text(JOB)
    root = Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(root)])}
    done = subprocess.run(
        [sys.executable, "job.py", photos, tmp_path],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "web" / "manifest.csv").is_file()
    assert (tmp_path / "rocket.png").is_file()
