"""Turns a file into a C array: embed.py INPUT OUTPUT NAME."""
import sys

source, target, name = sys.argv[1:4]
with open(source, "rb") as f:
    data = f.read()
with open(target, "w") as f:
    f.write(f"extern const unsigned char {name}[];\nextern const unsigned long {name}_size;\n")
    f.write(f"const unsigned char {name}[] = {{")
    f.write(",".join(str(b) for b in data))
    f.write(f"}};\nconst unsigned long {name}_size = {len(data)};\n")
