"""loops.py BINARY OUT: the inner loops of an aarch64 binary, each as an assembly file for llvm-mca.

An inner loop is what lies between a conditional branch backwards and its target, without other branches, and is at least 64 multiplying instructions
long. Printed a line each: kind of instruction, how many of them, the file. Loops that are alike are written once.
"""

import re
import subprocess
import sys

PRODUCTS = {"smlal": "smlal", "smlal2": "smlal", "sdot": "sdot", "usmmla": "usmmla", "smmla": "usmmla"}
LEAST = 64


def instructions(binary):
    """(address, mnemonic, operands) of each instruction."""
    command = ["aarch64-linux-gnu-objdump", "-d", "--no-show-raw-insn", binary]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for line in text.splitlines():
        match = re.match(r"\s*([0-9a-f]+):\t(\S+)\s*([^/\n]*)", line)
        if match:
            yield int(match[1], 16), match[2], match[3].strip()


def inner_loops(code):
    """Lists of instructions, each from a branch's target to the branch."""
    start = 0
    for end, (address, mnemonic, operands) in enumerate(code):
        if not re.fullmatch(r"b\..*|cbn?z|tbn?z|b|bl|blr|br|ret", mnemonic):
            continue
        target = re.search(r"\b([0-9a-f]+) <", operands)
        if target and mnemonic.startswith(("b.", "cb")):
            length = (address - int(target[1], 16)) // 4
            if 0 < length <= end - start:
                yield code[end - length : end + 1]
        start = end + 1


def main():
    binary, out = sys.argv[1], sys.argv[2]
    seen = set()
    for loop in inner_loops(list(instructions(binary))):
        kinds = [PRODUCTS[mnemonic] for _, mnemonic, _ in loop if mnemonic in PRODUCTS]
        body = "\n".join(f"{mnemonic} {operands}" for _, mnemonic, operands in loop[:-1])
        if len(kinds) < LEAST or re.sub(r"\bx\d+", "x", body) in seen:
            continue
        seen.add(re.sub(r"\bx\d+", "x", body))
        path = f"{out}/{kinds[0]}-{len(seen)}.s"
        with open(path, "w") as file:
            file.write(f"3:\n{body}\n{loop[-1][1]} {'x0, ' if loop[-1][1].startswith('cb') else ''}3b\n")
        print(kinds[0], len(kinds), path)


if __name__ == "__main__":
    main()
