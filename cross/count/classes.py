"""classes.py FILE FROM TO: what ran between two cuts of opcount.c's output, by class and by mnemonic.

Words are disassembled by aarch64-linux-gnu-objdump (binutils-aarch64-linux-gnu).
"""

import collections
import re
import subprocess
import sys
import tempfile

CLASSES = [
    ("dot product", r"[su]dot|usdot|sudot"),
    ("matrix product", r"us?mmla|smmla|ummla|usmmla"),
    ("widening product", r"[su]mlal2?|[su]mull2?|[su]mlsl2?"),
    ("float product", r"fml[as]|fmul|fmadd"),
    ("prefetch", r"prfu?m"),
    ("branch", r"b|b\..*|bl|blr|br|ret|cbn?z|tbn?z"),
]


def read_cuts(path):
    """Totals and counts by word, one entry a cut."""
    totals, counts = [], []
    with open(path) as lines:
        for line in lines:
            fields = line.split()
            if fields[0] == "cut":
                totals.append(int(fields[2]))
                counts.append({})
            else:
                counts[-1][fields[0]] = int(fields[1])
    return totals, counts


def disassemble(words):
    """(mnemonic, operands) of each word."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"".join(int(word, 16).to_bytes(4, "little") for word in words))
        file.flush()
        command = ["aarch64-linux-gnu-objdump", "-D", "-z", "-b", "binary", "-m", "aarch64", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = [line.split("\t")[2:] for line in text.splitlines() if re.match(r"\s*[0-9a-f]+:\t", line)]
    assert len(found) == len(words), "the disassembler left something out"
    return [(fields[0].strip(), fields[1] if len(fields) > 1 else "") for fields in found]


def class_of(mnemonic, operands):
    vector = re.search(r"\b[vqds]\d+\b", operands) is not None
    for name, pattern in CLASSES:
        if re.fullmatch(pattern, mnemonic) and (vector or name in ("prefetch", "branch")):
            return name
    kind = "vector" if vector else "scalar"
    if mnemonic.startswith("ld"):
        return f"{kind} load"
    if mnemonic.startswith("st"):
        return f"{kind} store"
    return f"other {kind}"


def main():
    path, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    totals, counts = read_cuts(path)
    ran = {word: n - counts[first].get(word, 0) for word, n in counts[last].items()}
    ran = {word: n for word, n in ran.items() if n}
    classes, mnemonics = collections.Counter(), collections.Counter()
    for (mnemonic, operands), n in zip(disassemble(list(ran)), ran.values()):
        classes[class_of(mnemonic, operands)] += n
        mnemonics[mnemonic] += n
    total = totals[last] - totals[first]
    print(f"{'total':18} {total / 1e6:10.2f} M")
    for name, n in classes.most_common():
        print(f"{name:18} {n / 1e6:10.2f} M {100 * n / total:5.1f} %")
    print("most:", ", ".join(f"{name} {n / 1e6:.1f}" for name, n in mnemonics.most_common(20)))


if __name__ == "__main__":
    main()
