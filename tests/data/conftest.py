"""Its presence puts this folder on the path: the modules beside it are what the tests of all rooms share."""
