# SPDX-License-Identifier: MIT
"""``python -m nervcodec``: the same as the ``nervcodec`` command."""

from nervcodec.cli.main import main

if __name__ == "__main__":
    main()
