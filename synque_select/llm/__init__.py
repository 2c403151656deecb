"""Language models behind one small contract."""
