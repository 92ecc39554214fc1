"""The page: a photo in, candidate places on a map out. It talks to core, and core never to it."""
