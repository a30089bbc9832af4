"""Tests of the packages, of the tarball and of flashed cards."""
