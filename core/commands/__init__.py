"""One module per command of ``python -m core``; heavy packages are imported inside the commands.

So ``--help`` is instant, and locating one photo does not pay for packages it does not use.
"""
