# SPDX-License-Identifier: MIT
"""Things that search finds: present ones and absent ones, hand-labelled in three clips.

    python benchmarks/cut_off.py [--time 60s] [BIKES.nerv BIGBUCKBUNNY.nerv CARPHONE.nerv]

``labels/CLIP.json`` lists what a person sees in a clip, with first and last frames, and everyday things that are not
there. Each is asked for as a bare noun, with an article, in capitals, as "a photo of", and in the plural. A thing that
is there counts as found where the first moment overlaps its frames; one that is not counts as false with any moment.
With the offline encoder the curve of both over the cut-off is computed too, and what a cut-off that is fitted to two
clips (``--target`` of the absent things) gives on the third. Without files, the clips are fitted first.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from end_to_end import clip
from machine import RESULTS, print_rows, save

import nervcodec
from nervcodec.ranges import parse_duration
from nervcodec.search.moments import TEST_RADIUS_S, Moment, find_moments
from nervcodec.search.query import MIN_SHARE, ClassShareTest, EncodedQuery, Query, Term, encode_query
from nervcodec.search.scores import VideoEmbeddings
from nervcodec.semantic.encoder import SemanticEncoder, load
from nervcodec.semantic.offline import OfflineEncoder

CLIPS = ("bikes", "bigbuckbunny", "carphone_pristine")
WORDINGS = ("bare", "article", "capitals", "a photo of", "plural")
PLURALS = {"man": "men", "woman": "women", "child": "children", "person": "people", "businessman": "businessmen"}
PLURALS |= {"knife": "knives", "bookshelf": "bookshelves", "goose": "geese", "sheep": "sheep", "fish": "fish"}
PLURALS |= {word: f"{word}es" for word in ("potato", "tomato", "volcano", "tornado")}


def plural(thing: str) -> str:
    """The plural of the last word, or of the one before "in"."""
    head, of, rest = thing.partition(" in ")
    before, space, word = head.rpartition(" ")
    if word in PLURALS:
        word = PLURALS[word]
    elif word.endswith("y") and word[-2] not in "aeiou":
        word = f"{word[:-1]}ies"
    else:
        word += "es" if word.endswith(("s", "x", "ch", "sh")) else "s"
    return before + space + word + of + rest


def worded(thing: str, wording: str, no_plural: bool) -> str:
    """One way to ask for a thing."""
    article = "the" if no_plural else "an" if thing[0] in "aeiou" else "a"
    return {
        "bare": thing,
        "article": f"{article} {thing}",
        "capitals": thing.upper(),
        "a photo of": f"a photo of {thing}" if no_plural else f"a photo of {article} {thing}",
        "plural": thing if no_plural else plural(thing),
    }[wording]


def labels(name: str) -> dict:
    """What is and what is not in a clip."""
    return json.loads((Path(__file__).parent / "labels" / f"{name}.json").read_text())


def first_moment(index: VideoEmbeddings, query: EncodedQuery, seen: dict[bytes, Moment | None]) -> Moment | None:
    """The first moment of a query, cached by its vector."""
    key = query.vector.tobytes()
    if key not in seen:
        seen[key] = next(iter(find_moments([index], lambda _: query, 1)), None)
    return seen[key]


def judged(
    name: str, index: VideoEmbeddings, encoder: SemanticEncoder, wording: str, seen: dict[bytes, Moment | None]
) -> tuple[dict, dict]:
    """A row of the table, and what went wrong: things that were missed, and absent ones that were found."""
    known = labels(name)
    missed, false = [], []
    for thing, spans in [*known["present"].items(), *((thing, None) for thing in known["absent"])]:
        text = worded(thing, wording, thing in known["no_plural"])
        query = encode_query(Query((Term(text),)), encoder)
        first = first_moment(index, query, seen)
        if spans is None:
            false += [thing] if first else []
        elif first is None or not any(a <= first.last_frame and first.first_frame <= b for a, b in spans):
            missed.append(thing if first is None else f"{thing} (elsewhere)")
    present, absent = len(known["present"]), len(known["absent"])
    row = {"clip": name, "wording": wording, "present": present, "found": round(1 - len(missed) / present, 3)}
    return {**row, "absent": absent, "false": round(len(false) / absent, 3)}, {"missed": missed, "false": false}


def evidence(name: str, index: VideoEmbeddings, encoder: OfflineEncoder) -> np.ndarray:
    """Best share and whether it lies in the right frames for every thing of a clip: ``(n, 3)``, with present or not."""
    known = labels(name)
    patches = index.grid.rows * index.grid.columns
    step = max(1, round(float(index.frame_rate) / 5))
    frames = range(0, index.frame_count, step)
    blended = encoder.mixture.shares(
        np.stack([index.mean_embedding(f, p, TEST_RADIUS_S) for f in frames for p in range(patches)])
    )
    rows = []
    for thing, spans in [*known["present"].items(), *((thing, []) for thing in known["absent"])]:
        query = encode_query(Query((Term(thing),)), encoder)
        assert isinstance(query.is_match, ClassShareTest)
        relevance = query.is_match.relevance
        shares = (blended @ relevance - relevance.mean()).reshape(len(frames), patches).max(axis=1)
        best = frames[int(shares.argmax())]
        rows.append((shares.max(), any(a - step <= best <= b + step for a, b in spans), bool(spans)))
    return np.array(rows, float)


def curve(rows: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """(found, false) for each cut-off: ``(n, 2)``."""
    share, right, present = rows.T
    over = share >= levels[:, None]
    found = (over & (right > 0)).sum(axis=1) / (present > 0).sum()
    return np.stack([found, (over & (present == 0)).sum(axis=1) / (present == 0).sum()], axis=1)


def cross_validated(parts: dict[str, np.ndarray], target: float) -> list[dict]:
    """Rows: the cut-off that lets ``target`` of the absent things of two clips pass, and what it gives on the third."""
    rows = []
    for name, held_out in parts.items():
        others = np.concatenate([part for other, part in parts.items() if other != name])
        level = float(np.quantile(others[others[:, 2] == 0, 0], 1 - target))
        found, false = curve(held_out, np.array([level]))[0]
        rows.append({"held_out": name, "cut_off": round(level, 3), "found": round(found, 3), "false": round(false, 3)})
    return rows


def draw(parts: dict[str, np.ndarray], path: Path) -> None:
    """Found against false over the cut-off, by clip, with the shipped cut-off marked."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 5))
    for name, rows in {**parts, "all": np.concatenate(list(parts.values()))}.items():
        points = curve(rows, np.linspace(0, 1, 201))
        (line,) = axes.plot(points[:, 1], points[:, 0], label=name, linewidth=2.5 if name == "all" else 1)
        axes.plot(*curve(rows, np.array([MIN_SHARE]))[0][::-1], "o", color=line.get_color())
    axes.set(xlabel="absent things with a hit", ylabel="present things found", xlim=(0, 0.4), ylim=(0, 1))
    axes.set_title(f"Search over the cut-off (dots: {MIN_SHARE})")
    axes.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="containers of bikes, bigbuckbunny, carphone_pristine")
    parser.add_argument("--time", default="60s", help="of fitting, for each clip")
    parser.add_argument("--target", type=float, default=0.07, help="share of absent things to fit a cut-off to")
    parser.add_argument("--wrong", action="store_true", help="name what was missed and what was found falsely")
    arguments = parser.parse_args()
    if arguments.files and len(arguments.files) != len(CLIPS):
        parser.error(f"name a container for each of {', '.join(CLIPS)}")
    table, mistakes, parts = [], {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(CLIPS):
            file = arguments.files[number] if arguments.files else Path(folder) / f"{name}.nerv"
            if not arguments.files:
                seconds = parse_duration(arguments.time)
                nervcodec.encode(clip(f"{name}.mp4"), file, encoder="offline", audio="none", time_s=seconds)
            index = VideoEmbeddings.from_video(nervcodec.open(file))
            encoder = load(index.encoder)
            seen: dict[bytes, Moment | None] = {}
            for wording in WORDINGS:
                row, wrong = judged(name, index, encoder, wording, seen)
                table.append(row)
                mistakes[f"{name}, {wording}"] = wrong
            if isinstance(encoder, OfflineEncoder):
                parts[name] = evidence(name, index, encoder)
    for wording in WORDINGS:
        table.append(overall(wording, [row for row in table if row["wording"] == wording]))
    table.append(overall("every wording", [row for row in table if row["clip"] != "all"]))
    print_rows(table)
    validated = cross_validated(parts, arguments.target) if parts else []
    if parts:
        print_rows(validated)
        RESULTS.mkdir(exist_ok=True)
        draw(parts, RESULTS / "cut_off.png")
    if arguments.wrong:
        for where, wrong in mistakes.items():
            print(where, *(f"  {kind}: {', '.join(things)}" for kind, things in wrong.items()), sep="\n")
    print(save("cut_off", table, cut_off=MIN_SHARE, cross_validated=validated, mistakes=mistakes))


def overall(wording: str, rows: list[dict]) -> dict:
    """The row of all clips together."""
    present, absent = (sum(row[kind] for row in rows) for kind in ("present", "absent"))
    found = sum(row["found"] * row["present"] for row in rows) / present
    false = sum(row["false"] * row["absent"] for row in rows) / absent
    sums = {"present": present, "found": round(found, 3), "absent": absent, "false": round(false, 3)}
    return {"clip": "all", "wording": wording, **sums}


if __name__ == "__main__":
    main()
