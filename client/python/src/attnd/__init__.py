"""Client of attnd, the attention service with learned relative-position bias."""
