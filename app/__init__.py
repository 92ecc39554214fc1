"""The page: a photo in, candidate places on a map out. It imports core; core never imports it."""
