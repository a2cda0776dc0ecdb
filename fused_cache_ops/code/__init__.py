"""What the code of one UDF calls, caches and reads. The code is read with `ast`, and never run."""
