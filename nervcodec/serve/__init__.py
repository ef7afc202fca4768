# SPDX-License-Identifier: MIT
"""A page to watch, scrub and search containers. An optional room: it takes the extra ``serve``.

A request: app (addresses) -> desk (threads, the same work once) -> pictures, fragments, questions, facts -> an answer.
"""
