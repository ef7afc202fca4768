# SPDX-License-Identifier: MIT
"""Who may import what: a fresh interpreter imports a module, then its list of modules is read."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"
LOOK = "import json, sys; print(json.dumps(sorted(sys.modules)))"


def modules_after(code: str) -> set[str]:
    result = subprocess.run([sys.executable, "-c", f"{code}\n{LOOK}"], capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import nervcodec",
        "import nervcodec.formats.container",
        "import nervcodec.cli.main",
        "import nervcodec.decoding",
        "import nervcodec.options",
        "import nervcodec.sizing",
        "import nervcodec.jobs.scheduler",
        "import nervcodec.search.moments, nervcodec.media.planes",
    ],
)
def test_light_modules_stay_light(code):
    assert not modules_after(code) & {"av", "torch", "open_clip", "transformers", "torchvision"}


def test_the_command_needs_neither_numpy_nor_rich_for_help():
    assert not modules_after("import nervcodec.cli.main") & {"numpy", "rich", "safetensors"}


def test_the_library_never_imports_click_or_rich():
    everything = ("encoding", "evaluation.compare", "evaluation.report", "decoding", "search.moments")
    imports = ", ".join(f"nervcodec.{module}" for module in everything)
    assert not modules_after(f"import {imports}") & {"click", "nervcodec.cli"}


def test_decoding_imports_neither_the_fit_nor_an_encoder(small_nerv):
    code = f"import nervcodec; video = nervcodec.open({str(small_nerv)!r}); video[0]; video.patch(1, 0, 0)"
    loaded = modules_after(code)
    assert "torch" in loaded
    assert not [m for m in loaded if m.startswith(("nervcodec.training", "nervcodec.semantic", "open_clip"))]
    assert "torch._dynamo" not in loaded  # a second of every start


def test_frames_of_a_base_layer_need_no_torch(layered_nerv):
    """Nor does anything else that is asked of such a file, but for frames of another size."""
    code = (
        "import nervcodec\n"
        "with nervcodec.open({!r}) as video:\n"
        "    video[3], video[2:4], video[[59, 0]], video.frame_at(1.0), list(video)\n"
        "    video.patch(1, 0, 0)\n"
        "    video.needs(3), video.sound(), video.frame_times_s, repr(video)\n"
    )
    assert not modules_after(code.format(str(layered_nerv))) & {"torch", "nervcodec.network.build"}


def test_names_are_resolved_when_used():
    code = "import nervcodec\nassert nervcodec.NervError and nervcodec.__version__\nassert not hasattr(nervcodec, 'x')"
    modules_after(code)


def test_a_search_of_codes_needs_no_torch(tmp_path):
    shutil.copy(GOLDEN / "version3_grid.nerv", tmp_path)
    code = (
        "from pathlib import Path; from nervcodec.search.scores import open_embeddings; import nervcodec.index.lookup\n"
        "from nervcodec.semantic.offline import OfflineEncoder; OfflineEncoder().embed_text(['a van'])\n"
        f"open_embeddings(Path({str(tmp_path)!r}) / 'version3_grid.nerv')"
    )
    assert not modules_after(code) & {"av", "torch", "PIL", "rich"}


def test_a_search_with_an_index_opens_no_container(tmp_path):
    shutil.copy(GOLDEN / "version3_grid.nerv", tmp_path)
    command = "import contextlib, sys; from nervcodec.cli.main import main; sys.argv[1:] = {}\nwith {}: main()"
    modules_after(command.format(["index", str(tmp_path)], "contextlib.suppress(SystemExit)"))
    loaded = modules_after(command.format(["search", "a man", str(tmp_path)], "contextlib.suppress(SystemExit)"))
    assert "sqlite3" in loaded
    assert not loaded & {"av", "torch", "PIL", "rich", "nervcodec.formats.container", "nervcodec.network"}
