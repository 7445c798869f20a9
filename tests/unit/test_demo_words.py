"""What the demo says to try next works as it stands."""

from __future__ import annotations

import subprocess
import sys

from idxctl.cli import demo


def test_a_shell_that_does_not_find_idxctl_is_told_where_it_is(tmp_path, monkeypatch):
    program = tmp_path / "a folder" / "idxctl"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho found\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(program), "demo"])
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    ((command, _),) = demo._where_it_is()
    told = subprocess.run(["/bin/sh", "-c", f"{command}; idxctl"], capture_output=True, text=True, check=False)
    assert told.stdout == "found\n"
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    assert demo._where_it_is() == []


def test_where_no_program_was_installed_a_shell_is_told_how_to_run_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/idxctl/__main__.py", "demo"])
    python = tmp_path / "a python"
    python.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    ((command, _),) = demo._where_it_is()
    assert command == f"idxctl() {{ '{python}' -m idxctl \"$@\"; }}"
