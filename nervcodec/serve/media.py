# SPDX-License-Identifier: MIT
"""Endpoints of pictures, thumbnails and fragments."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from nervcodec.serve import limits, pictures
from nervcodec.serve.desk import Leave
from nervcodec.serve.fragments import plan, video_fragment
from nervcodec.serve.sound import Sounds
from nervcodec.serve.works import Works


class Media:
    """Endpoints of pictures and fragments."""

    def __init__(self, works: Works):
        self._works, self._sounds = works, Sounds()

    def routes(self) -> list[Route]:
        """The routes of all media."""
        return [
            Route("/thumbnail/{path:name}", self.thumbnail),
            Route("/frame/{path:name}/{number}", self.frame),
            Route("/media/{path:name}/video/{number}", self.video),
            Route("/media/{path:name}/audio/{number}", self.audio),
        ]

    async def thumbnail(self, request: Request) -> Response:
        """A small picture."""

        item = self._works.item(request)

        def made(_leave: Leave) -> bytes:
            return pictures.thumbnail(item.file)

        return await self._works.of_item(self._works.thumbnails, request, item, ("thumbnail",), made, "image/jpeg")

    async def frame(self, request: Request) -> Response:
        """One frame, decoded alone."""
        number = limits.integer("a frame", request.path_params["number"])
        form = limits.choice(
            "format", limits.single_param(request, "format", pictures.JPEG), (pictures.JPEG, pictures.PNG)
        )
        wide = limits.single_param(request, "width", "")
        width = limits.integer("width", wide, limits.SMALLEST_WIDTH, limits.LARGEST_WIDTH) if wide else None
        what, item = ("frame", number, form, width), self._works.item(request)

        def made(_leave: Leave) -> bytes:
            return pictures.picture(pictures.frame(self._works.store.open(item), number), form, width)

        self._works.head_for(item, number)
        response = await self._works.of_item(self._works.frames, request, item, what, made, f"image/{form}")
        self._works.go_ahead(item, number)
        return response

    async def video(self, request: Request) -> Response:
        """A fragment of the picture."""
        number, item = limits.integer("a fragment", request.path_params["number"]), self._works.item(request)

        def made(leave: Leave) -> bytes:
            return video_fragment(self._works.store.open(item), number, leave)

        return await self._works.of_item(self._works.fragments, request, item, ("video", number), made, "video/mp4")

    async def audio(self, request: Request) -> Response:
        """A fragment of the sound."""
        number, item = limits.integer("a fragment", request.path_params["number"]), self._works.item(request)

        def made(leave: Leave) -> bytes:
            video = self._works.store.open(item)
            cut = plan(video)
            pieces = self._sounds.of(item.version, video, leave) if number < cut.count else None
            if pieces is None:
                raise limits.MissingError(f"there is no sound {number:,} in {item.name}")
            return pieces.piece(number * cut.length, (number + 1) * cut.length)

        return await self._works.of_item(self._works.facts, request, item, ("audio", number), made, "audio/mp4")
