# SPDX-License-Identifier: MIT
"""MP4 files to play: whole, or growing while they are coded; cached, and made by a process that may crash."""

import http.client
import json
import os
import shutil
import threading
import time

import av
import numpy as np
import pytest
from sites import GRID, LAPPED, SOUND_S, TIMES_S, VARIABLE_END_S, changed, serving, spoilt

import nervcodec
from nervcodec.metrics import psnr_db
from nervcodec.serve import media_cache, transcode
from nervcodec.serve.media_cache import MediaCache
from nervcodec.serve.state import AppState
from nervcodec.worker import Worker

TICKS_S = 90_000


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of its own for each test."""
    monkeypatch.setenv("NERVCODEC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "media"


@pytest.fixture
def place(tmp_path):
    """A folder for containers."""
    (tmp_path / "videos").mkdir()
    return tmp_path / "videos"


@pytest.fixture
def long_nerv(tmp_path_factory):
    """A network of several seconds: few frames a second, so that there are several pieces."""
    target = tmp_path_factory.mktemp("long") / "long.nerv"
    return changed(GRID, target, frame_rate=(3, 1), duration_s=5.0)


def frames_of(data: bytes, folder) -> list[tuple[float, np.ndarray]]:
    """(time in seconds, RGB) of each frame of a file."""
    (folder / "shown.mp4").write_bytes(data)
    with av.open(str(folder / "shown.mp4")) as file:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in file.decode(video=0)]


def heard(data: bytes, folder) -> np.ndarray:
    """Samples of the sound of a file from time 0 on, 48,000 a second."""
    (folder / "heard.mp4").write_bytes(data)
    with av.open(str(folder / "heard.mp4")) as file:
        parts = [(frame.pts, frame.to_ndarray()[0]) for frame in file.decode(audio=0)]
    out = np.zeros(parts[-1][0] + len(parts[-1][1]))
    for at, samples in parts:
        out[max(at, 0) : at + len(samples)] = samples[max(-at, 0) :]
    return out


def boxes(data: bytes) -> list[bytes]:
    """Names of the outermost boxes."""
    found, at = [], 0
    while at < len(data):
        found.append(data[at + 4 : at + 8])
        at += int.from_bytes(data[at : at + 4], "big")
    return found


def test_a_whole_file_has_the_frames_at_their_times(place, tmp_path):
    shutil.copy(GRID, place / "a.nerv")
    with serving(place) as site:
        reply = site.right("/media/a.nerv.mp4")
    assert reply.headers["content-type"] == "video/mp4"
    assert boxes(reply.body)[:2] == [b"ftyp", b"moov"]
    shown = frames_of(reply.body, tmp_path)
    np.testing.assert_allclose([at for at, _ in shown], np.arange(15) * 1001 / 30000, atol=1e-4)
    with nervcodec.open(place / "a.nerv") as video:
        assert min(psnr_db(frame, other) for (_, frame), other in zip(shown, video, strict=True)) > 30


def test_parts_of_a_file(place):
    shutil.copy(GRID, place / "a.nerv")
    with serving(place) as site:
        whole = site.right("/media/a.nerv.mp4")
        assert whole.headers["accept-ranges"] == "bytes"
        part = site.ask("/media/a.nerv.mp4", Range="bytes=100-199", **{"If-Range": whole.headers["etag"]})
        assert (part.status, part.body) == (206, whole.body[100:200])
        assert part.headers["content-range"] == f"bytes 100-199/{len(whole.body)}"
        end = site.ask("/media/a.nerv.mp4", Range="bytes=-10")
        assert (end.status, end.body) == (206, whole.body[-10:])
        assert site.ask("/media/a.nerv.mp4", Range=f"bytes={len(whole.body)}-").status == 416


def test_frames_that_do_not_come_evenly(place, tmp_path):
    changed(LAPPED, place / "a.nerv", {"frame_times": TIMES_S}, variable_frame_rate=True, duration_s=VARIABLE_END_S)
    with serving(place) as site:
        for address in ("/media/a.nerv.mp4?from=0", "/media/a.nerv.mp4"):
            shown = frames_of(site.right(address).body, tmp_path)
            np.testing.assert_allclose([at for at, _ in shown], TIMES_S, atol=1e-4)


def test_a_moment_is_saved_as_a_clip(place, layered_nerv, tmp_path):
    """Coded for a network, cut out of the whole file where there is one; it begins and ends with the moment."""
    changed(GRID, place / "a.nerv", frame_rate=(3, 1), duration_s=5.0)
    shutil.copy(layered_nerv, place / "b.nerv")
    with serving(place) as site:
        for name, start in (("a", 1.0), ("a", 2 / 3), ("b", 0.2)):
            details = site.right(f"/api/file/{name}.nerv").json
            count = 5
            stop = start + count / details["frame_rate"]
            clips = [site.right(f"/clip/{name}.nerv.mp4?start={start:.4f}&stop={stop:.4f}")]
            assert clips[0].headers["content-disposition"].startswith("attachment")
            site.right(f"/media/{name}.nerv.mp4")
            clips.append(site.right(f"/clip/{name}.nerv.mp4?start={start:.3f}&stop={stop:.3f}"))
            first = round(start * details["frame_rate"])
            with nervcodec.open(place / f"{name}.nerv") as video:
                for clip in clips:
                    shown = [(at, frame) for at, frame in frames_of(clip.body, tmp_path) if at > -0.01]
                    assert shown[0][0] == pytest.approx(0, abs=2e-3)
                    for (_, frame), expected in zip(shown, video[first : first + count], strict=True):
                        assert psnr_db(frame, expected) > 30
        for query in ("start=1", "start=3&stop=2", "start=x&stop=2", "start=1&stop=99"):
            assert site.ask(f"/clip/a.nerv.mp4?{query}").status == 400


def test_a_base_layer_is_copied(place, layered_nerv, tmp_path):
    shutil.copy(layered_nerv, place / "a.nerv")
    with serving(place) as site:
        base, avc = site.right("/api/file/a.nerv").json["media"]
        assert (base["codec"], base["is_whole"], avc["is_whole"]) == ("base", True, False)
        assert base["type"].startswith('video/mp4; codecs="av01.0.')
        copied, coded = (site.right(f"/media/a.nerv.mp4?codec={codec}").body for codec in ("base", "avc"))
        assert site.right("/media/a.nerv.mp4").body == copied
        assert site.right("/api/file/a.nerv").json["media"][1]["is_whole"]
    with nervcodec.open(layered_nerv) as video:
        video.write_base(tmp_path / "again.mp4")
        assert (tmp_path / "again.mp4").read_bytes() == copied
        for data, least in ((copied, 40), (coded, 30)):
            shown = [frame for _, frame in frames_of(data, tmp_path)]
            assert min(psnr_db(one, other) for one, other in zip(shown, video, strict=True)) > least


@pytest.mark.parametrize("codec", ["aac", "libopus"])
def test_sound_goes_on_without_a_gap(place, tmp_path, ffmpeg, codec):
    """A tone of 440 Hz: what is heard a period later is the same, and a click would not be."""
    from sites import sound

    tone = sound(ffmpeg, tmp_path, "-c:a", codec)
    changed(GRID, place / "a.nerv", {"audio": tone}, frame_rate=(5, 1), duration_s=3.0)
    with serving(place) as site:
        assert site.right("/api/file/a.nerv").json["media"][0]["type"].endswith(', mp4a.40.2"')
        for address in ("/media/a.nerv.mp4?from=0", "/media/a.nerv.mp4"):
            samples = heard(site.right(address).body, tmp_path)
            middle = samples[4800 : int((SOUND_S - 0.1) * 48000)]
            later = np.interp(np.arange(len(middle) - 200) + 48000 / 440, np.arange(len(middle)), middle)
            assert np.abs(middle).max() > 0.05
            assert np.abs(later - middle[: len(later)]).max() < 0.1 * np.abs(middle).max()
            if "from" in address:  # silent to the end, since browsers wait for sound that does not come
                assert len(samples) / 48000 == pytest.approx(3.0, abs=0.03)
                assert np.abs(samples[int((SOUND_S + 0.1) * 48000) :]).max() < 1e-3


def test_sound_is_in_time_with_the_first_frame(place, tmp_path, ffmpeg):
    """The first frame shows 1 s before the tone begins."""
    from sites import sound

    changed(GRID, place / "a.nerv", {"audio": sound(ffmpeg, tmp_path, "-c:a", "aac")}, frame_rate=(5, 1),
            duration_s=3.0, first_frame_s=-1.0)  # fmt: skip
    with serving(place) as site:
        for address in ("/media/a.nerv.mp4?from=0", "/media/a.nerv.mp4"):
            samples = np.abs(heard(site.right(address).body, tmp_path))
            assert int(np.argmax(samples > 0.05)) / 48000 == pytest.approx(1.0, abs=0.03), address


def test_a_stream_grows_from_the_moment_that_is_requested(place, long_nerv, tmp_path):
    """Pieces have three frames. The stream begins with frame 7 and has the times of the video."""
    shutil.copy(long_nerv, place / "a.nerv")
    with serving(place) as site:
        reply = site.right("/media/a.nerv.mp4?from=7")
        assert "content-length" not in reply.headers
        shown = frames_of(reply.body, tmp_path)
        np.testing.assert_allclose([at for at, _ in shown], np.arange(7, 15) / 3, atol=1e-4)
        with nervcodec.open(place / "a.nerv") as video:
            for number, (_, frame) in enumerate(shown, 7):
                assert psnr_db(frame, video[number]) > 30
        whole = [frame for _, frame in frames_of(site.right("/media/a.nerv.mp4").body, tmp_path)]
        assert len(whole) == 15
        assert site.right("/api/media/a.nerv").json == {"is_whole": True, "frames": [[0, 15]], "error": None}


def test_what_a_stream_waits_for_is_coded_first(place, long_nerv, monkeypatch):
    shutil.copy(long_nerv, place / "a.nerv")
    order, first = [], threading.Event()
    with serving(place) as site:
        call = Worker.call

        def noted(worker, function, *arguments, **options):
            if function is transcode.code_piece:
                order.append(arguments[2])
                first.wait(20)
            return call(worker, function, *arguments, **options)

        monkeypatch.setattr(Worker, "call", noted)
        site.right("/api/media/a.nerv")
        while not order:
            time.sleep(0.01)
        late = threading.Thread(target=site.right, args=("/media/a.nerv.mp4?from=10",))
        late.start()
        time.sleep(0.3)
        first.set()
        late.join()
        site.right("/media/a.nerv.mp4")
    assert order == [0, 10, 12, 3, 6, 9]


def test_made_once(place, cache, monkeypatch):
    """For several requests at once, for a copy under another name, and by a later server."""
    shutil.copy(GRID, place / "a.nerv")
    shutil.copy(GRID, place / "b.nerv")
    calls, call = [], Worker.call
    monkeypatch.setattr(
        Worker, "call", lambda worker, *given, **more: (calls.append(given[0]), call(worker, *given, **more))[1]
    )
    with serving(place) as site:
        replies = []
        asking = [
            threading.Thread(target=lambda name=name: replies.append(site.right(f"/media/{name}.nerv.mp4").body))
            for name in "aaabb"
        ]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
    assert len(set(replies)) == 1
    with serving(place) as site:
        assert site.right("/media/b.nerv.mp4").body == replies[0]
    assert calls.count(transcode.code_piece) == 1
    assert [path.suffix for path in cache.iterdir()] == [".mp4"]


def test_pieces_of_a_killed_server_are_used(place, long_nerv, cache, monkeypatch):
    shutil.copy(long_nerv, place / "a.nerv")
    with serving(place) as site:
        item = site.state.store.entry("a.nerv")
        folder = site.state.media.target(item, "avc").with_suffix(".parts")
    transcode.code_piece(place / "a.nerv", "1", 6, folder)
    numbers, call = [], Worker.call

    def noted(worker, function, *arguments, **options):
        numbers.append(arguments[2] if function is transcode.code_piece else None)
        return call(worker, function, *arguments, **options)

    monkeypatch.setattr(Worker, "call", noted)
    with serving(place) as site:
        assert site.right("/api/media/a.nerv").json["frames"] == [[6, 9]]
        site.right("/media/a.nerv.mp4")
    assert [number for number in numbers if number is not None] == [0, 3, 9, 12]
    assert not folder.exists()


def test_what_a_killed_server_left_is_deleted(cache):
    cache.mkdir(parents=True)
    (cache / "old.parts").mkdir()
    for name in (".left.mp4", "new.mp4", ".now.mp4", "old.parts/3", "whole.mp4"):
        (cache / name).write_bytes(b"x")
    for name in (".left.mp4", "old.parts", "whole.mp4"):
        os.utime(cache / name, (1, 1))
    MediaCache(1000)
    assert {path.name for path in cache.iterdir()} == {"new.mp4", ".now.mp4", "whole.mp4"}


def test_the_least_recently_used_are_deleted(cache, monkeypatch):
    made = MediaCache(2500)
    cache.mkdir(parents=True)
    for age, name in enumerate("abcde"):
        (cache / f"{name}.mp4").write_bytes(bytes(1000))
        os.utime(cache / f"{name}.mp4", (1e9 - age, 1e9 - age))
    made._used[cache / "e.mp4"] = 2e9
    with made.reading(cache / "d.mp4"):
        made.evict()
        assert {path.stem for path in cache.iterdir()} == {"d", "e"}
    (cache / "f.mp4").write_bytes(bytes(9000))
    made.evict()
    assert {path.stem for path in cache.iterdir()} == {"d", "e", "f"}, "all were used within a minute"
    monkeypatch.setattr(media_cache, "_IN_USE_S", -1.0)
    made._used.clear()
    made.evict()
    assert not list(cache.iterdir())


def test_a_file_larger_than_the_cache_is_served(place, cache, monkeypatch):
    shutil.copy(GRID, place / "a.nerv")
    with serving(place) as site:
        site.state.media._limit_bytes = 10
        whole = site.right("/media/a.nerv.mp4")
        part = site.ask("/media/a.nerv.mp4", Range="bytes=5-9")
        assert part.body == whole.body[5:10]
        monkeypatch.setattr(media_cache, "_IN_USE_S", -1.0)
        while list(cache.iterdir()):  # the server may not have noticed yet that nothing is read any more
            site.state.media.evict()
        monkeypatch.setattr(media_cache, "_IN_USE_S", 60.0)
        assert site.right("/media/a.nerv.mp4").body == whole.body


def test_clips_count_for_the_size_of_the_cache(place, cache):
    """An older file gives way to a clip."""
    shutil.copy(GRID, place / "a.nerv")
    cache.mkdir(parents=True, exist_ok=True)
    old = cache / "old.mp4"
    old.write_bytes(bytes(9000))
    os.utime(old, (1e9, 1e9))
    with serving(place) as site:
        site.state.media._limit_bytes = 8000
        site.right("/clip/a.nerv.mp4?start=0&stop=0.2")
        assert not old.exists()


def test_a_killed_process_is_reported_and_the_server_goes_on(place, long_nerv, monkeypatch):
    shutil.copy(long_nerv, place / "a.nerv")
    with serving(place) as site:
        call = Worker.call

        monkeypatch.setattr(Worker, "call", lambda worker, *_, **__: call(worker, os._exit, 1))
        reply = site.ask("/media/a.nerv.mp4?from=0")
        assert reply.status == 500
        assert "crashed" in reply.error
        monkeypatch.setattr(Worker, "call", call)
        assert "crashed" in site.right("/api/media/a.nerv").json["error"]
        assert site.right("/media/a.nerv.mp4?from=0").body


def test_killed_while_it_streams(place, long_nerv, monkeypatch):
    """The stream ends before its end, which a browser takes for an error; the next request continues."""
    shutil.copy(long_nerv, place / "a.nerv")
    with serving(place) as site:
        call = Worker.call

        def killed(worker, function, *arguments, **options):
            if function is transcode.code_piece and arguments[2] == 6:
                os.kill(worker.pid, 9)
            return call(worker, function, *arguments, **options)

        monkeypatch.setattr(Worker, "call", killed)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            site.ask("/media/a.nerv.mp4?from=0")
        assert ["a worker process crashed" in note and "internal error" not in note for note in site.notes] == [True]
        progress = site.right("/api/media/a.nerv").json
        assert "crashed" in progress["error"]
        assert progress["frames"] == [[0, 6]]
        monkeypatch.setattr(Worker, "call", call)
        assert site.right("/media/a.nerv.mp4").body


def test_damage_and_what_cannot_be_written(place, cache):
    spoilt(GRID, place / "spoilt.nerv")
    shutil.copy(GRID, place / "a.nerv")
    with serving(place) as site:
        for address in ("/media/spoilt.nerv.mp4", "/media/spoilt.nerv.mp4?from=0"):
            reply = site.ask(address)
            assert reply.status == 409
            assert "damaged" in reply.error
        shutil.rmtree(cache.parent)
        cache.parent.write_bytes(b"no folder")
        reply = site.ask("/media/a.nerv.mp4")
        assert reply.status == 500
        assert "NERVCODEC_CACHE" in reply.error
        assert json.loads(site.right("/api/files").body)


def test_odd_sides_and_pixels_that_are_not_square(place, tmp_path, bikes):
    nervcodec.encode(bikes, place / "a.nerv", base="av1", crf=50, encoder="none", scale=(67, 65), duration_s=0.2)
    with serving(place) as site:
        base, avc = site.right("/api/file/a.nerv").json["media"]
        assert (base["width"], base["height"], avc["width"], avc["height"]) == (68, 66, 68, 66)
        for form in (base, avc):
            shown = frames_of(site.right(f"/media/a.nerv.mp4?codec={form['codec']}").body, tmp_path)
            assert shown[0][1].shape == (66, 68, 3)
    shutil.copy(GRID, place / "b.nerv")
    with serving(place) as site:
        (tmp_path / "b.mp4").write_bytes(site.right("/media/b.nerv.mp4").body)
    with av.open(str(tmp_path / "b.mp4")) as file:
        assert file.streams.video[0].sample_aspect_ratio == pytest.approx(128 / 117)


def test_the_limit_is_an_option(tmp_path):
    assert AppState(tmp_path, 7).media._limit_bytes == 7
