# SPDX-License-Identifier: MIT
"""A page to watch, scrub and search containers; needs the extra ``serve``.

A request goes through app (checks, pages, errors), api or media (endpoints), and executor (threads, coalescing).
Worker processes decode and encode.
"""
