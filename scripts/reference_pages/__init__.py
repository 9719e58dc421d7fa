"""Generated parts of the reference pages: a module a page, a function a part."""
