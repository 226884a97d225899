"""Network families of this library, one file each."""
