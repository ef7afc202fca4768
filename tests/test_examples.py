# SPDX-License-Identifier: MIT
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.slow
def test_python_api(bikes, tmp_path):
    command = [sys.executable, str(EXAMPLES / "python_api.py"), str(bikes), "street.nerv"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "50 frames of (136, 320, 3)" in result.stdout
    assert "'ndcg_at_10'" in result.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["street.nerv"]


def test_python_api_says_how_to_use_it():
    result = subprocess.run([sys.executable, str(EXAMPLES / "python_api.py")], capture_output=True, text=True)
    assert result.returncode == 1
    assert "Usage:" in result.stderr
