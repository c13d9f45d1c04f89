"""Ways to damage a file: random ones, and such that aim at what its format means."""
import json
import random
import re
import struct
import zlib

EVIL_NUMBERS = (0, 1, 2, 3, 7, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1,
                2**64 - 1)
EVIL_VALUES = (None, True, -1, 0, 1, 2**31, 2**63, 2**64, 10**400, 0.0, -1.5, 1e308, "", "x",
               "nan", "1e9", "\u2028\x1b[31m", "a" * 3000, [], [0], [1, [2]], [10**9] * 4, {},
               {"a": {"b": 1}})
EVIL_YAML = ("1e999", ".nan", "-.inf", "2001-02-31", "0x_", "!!int x", "[" * 900, "~", "0b2",
             "!!binary x", "190:20:30", "-0", "1" * 5000)
EVIL_TAILS = (" &a", ": 1", " *a", " !!python/object:os.system x", " | >", " [", " {", " '", "\t",
              "\0", "é")
HDF5_SIGNATURES = (b"\x89HDF", b"OHDR", b"OCHK", b"TREE", b"HEAP", b"SNOD", b"GCOL", b"FRHP",
                   b"FHDB", b"BTHD", b"BTLF", b"FAHD", b"EAHD", b"EAIB", b"FADB", b"FSHD", b"SMTB")

PNG_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"tRNS", b"iCCP", b"eXIf", b"zTXt", b"iTXt", b"pHYs",
              b"acTL", b"fcTL", b"sBIT", b"gAMA")
TIFF_TAGS = (254, 256, 257, 258, 259, 262, 270, 273, 274, 277, 278, 279, 282, 283, 284, 296, 317,
             320, 322, 323, 324, 325, 330, 338, 339, 347, 529, 530, 34675, 32997, 50838, 50839)


def damage(content: bytes, rng: random.Random) -> bytes:
    """One to four random damages, anywhere."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        content = rng.choice((flip_bits, overwrite, cut, swap_blocks, zero_block, append))(
            content, rng)
    return content


def damage_hdf5(content: bytes, rng: random.Random) -> bytes:
    """Mostly near the structures of HDF5 and in its lengths and addresses, because most
    bytes are pixels."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        kind = rng.choice(("structure", "structure", "number", "number", "head", "any"))
        if kind == "any":
            content = damage(content, rng)
        elif kind == "number":
            content = change_number(content, rng)
        else:
            places = ([place for place in find_all(content, HDF5_SIGNATURES)] if kind == "structure"
                      else [0])
            content = poke(content, rng, rng.choice(places or [0])
                           + rng.randrange(160 if kind == "structure" else 2048))
    return content


def damage_png(content: bytes, rng: random.Random) -> bytes:
    """Random damage, or such within chunks whose checksums are right again."""
    if rng.random() < 0.3:
        return damage(content, rng)
    place, chunks = 8, []
    while place + 12 <= len(content):
        length = int.from_bytes(content[place:place + 4], "big")
        chunks.append((content[place + 4:place + 8], content[place + 8:place + 8 + length]))
        place += 12 + length
    at = rng.randrange(len(chunks))
    kind = rng.choice((chunks[at][0], chunks[at][0], chunks[at][0], *PNG_CHUNKS))
    body = damage(chunks[at][1], rng) if chunks[at][1] else rng.randbytes(rng.choice((1, 13, 600)))
    chunks[at:at + rng.choice((0, 1, 1, 1))] = [(kind, body)]
    if rng.random() < 0.2:
        rng.shuffle(chunks)
    return content[:8] + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks)


def damage_tiff(content: bytes, rng: random.Random) -> bytes:
    """Mostly entries of directories and the words behind them: most bytes are pixels."""
    order = ">" if content[:2] == b"MM" else "<"
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = directory_entries(content, order)
        if not places or rng.random() < 0.25:
            content = damage(content, rng)
            continue
        place = rng.choice(places)
        kind = rng.choice(("tag", "type", "count", "value", "value", "value"))
        offset, form = {"tag": (0, "H"), "type": (2, "H"), "count": (4, "I"),
                        "value": (8, rng.choice("HI"))}[kind]
        new = {"tag": rng.choice(TIFF_TAGS), "type": rng.randrange(20)}.get(
            kind, rng.choice(EVIL_NUMBERS) & (0xffff if form == "H" else 0xffffffff))
        packed = struct.pack(order + form, new)
        place += offset
        content = content[:place] + packed + content[place + len(packed):]
    return content


def directory_entries(content: bytes, order: str) -> list[int]:
    """Where the entries of a classic TIFF's directories begin."""
    places, seen = [], set()
    at = struct.unpack(order + "I", content[4:8])[0] if len(content) >= 8 else 0
    while 8 <= at <= len(content) - 6 and at not in seen:
        seen.add(at)
        count = struct.unpack(order + "H", content[at:at + 2])[0]
        places += [at + 2 + 12 * number for number in range(count)]
        after = at + 2 + 12 * count
        at = struct.unpack(order + "I", content[after:after + 4])[0] if (
            after + 4 <= len(content)) else 0
    return [place for place in places if place + 12 <= len(content)]


def damage_described(content: bytes, rng: random.Random) -> bytes:
    """Numbers in what ImageJ and OME say of their planes, at the same length."""
    if rng.random() < 0.3:
        return damage_tiff(content, rng)
    found = list(re.finditer(rb"\d+", content))
    for _ in range(rng.choice((1, 1, 2)) if found else 0):
        number = rng.choice(found)
        new = rng.choice((b"9", b"0", b"1", b"-", b".", b"e", b"x"))
        content = content[:number.start()] + new * len(number[0]) + content[number.end():]
    return content


def damage_safetensors(content: bytes, rng: random.Random) -> bytes:
    """A lying header, or random damage."""
    if rng.random() < 0.3:
        return damage(content, rng)
    length = struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8:8 + length]), content[8 + length:]
    for _ in range(rng.choice((1, 1, 2))):
        if rng.random() < 0.6:
            inner = json.loads(header["__metadata__"]["header"])
            header["__metadata__"]["header"] = json.dumps(change_leaf(inner, rng))
        else:
            change_leaf(header, rng)
        if (not isinstance(header.get("__metadata__"), dict)
                or not isinstance(header["__metadata__"].get("header"), str)):
            break
    text = json.dumps(header).encode()
    if rng.random() < 0.1:
        return struct.pack("<Q", rng.choice(EVIL_NUMBERS)) + text + data
    return struct.pack("<Q", len(text)) + text + (data if rng.random() < 0.9
                                                  else data[:rng.randrange(len(data) + 1)])


def damage_yaml(text: bytes, rng: random.Random) -> bytes:
    """Lines moved, doubled, changed; values that do not belong; what YAML can do at its worst."""
    lines = text.decode().splitlines()
    for _ in range(rng.choice((1, 2, 4))):
        place = rng.randrange(len(lines))
        kind = rng.randrange(12)
        if kind == 0:
            lines.insert(place, lines[rng.randrange(len(lines))])
        elif kind == 1 and len(lines) > 1:
            del lines[place]
        elif kind == 2:
            lines[place] = " " * rng.randrange(8) + lines[place].lstrip()
        elif kind == 3:
            lines[place] += rng.choice(EVIL_TAILS)
        elif 4 <= kind < 11 and ":" in lines[place]:
            evil = (rng.choice(EVIL_YAML) if rng.random() < 0.4
                    else json.dumps(rng.choice(EVIL_VALUES)))
            lines[place] = f"{lines[place].partition(':')[0]}: {evil}"
        else:
            lines.insert(place, "bomb: &a [x,x,x]\n" + "\n".join(f"b{i}: &b{i} [*a,*a,*a]"
                                                                 for i in range(20)))
    content = ("\n".join(lines) + "\n").encode()
    return damage(content, rng) if rng.random() < 0.25 else content


def change_leaf(tree, rng: random.Random):
    """Replace, remove or add one value somewhere in nested dicts and lists; returns the tree."""
    node = tree
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return tree
        key = rng.choice(keys)
        if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.8:
            node = node[key]
            continue
        if isinstance(node, dict) and rng.random() < 0.15:
            del node[key]
        elif isinstance(node, dict) and rng.random() < 0.1:
            node[f"{key}x"] = node[key]
        elif isinstance(node[key], int) and not isinstance(node[key], bool) and rng.random() < 0.6:
            node[key] = rng.choice((*EVIL_NUMBERS, -1, node[key] + 1, node[key] * 2,
                                    node[key] // 2))
        else:
            node[key] = rng.choice(EVIL_VALUES)
        return tree


def flip_bits(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randint(1, 8) if changed else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwrite(content: bytes, rng: random.Random) -> bytes:
    return poke(content, rng, rng.randrange(len(content) + 1))


def poke(content: bytes, rng: random.Random, place: int) -> bytes:
    """1, 2, 4 or 8 bytes at `place`."""
    new = rng.choice((bytes([rng.randrange(256)]), b"\xff", b"\0", b"\x7f", b"\xff" * 8,
                      b"\0" * 4, struct.pack("<Q", rng.choice(EVIL_NUMBERS)),
                      struct.pack("<I", rng.choice(EVIL_NUMBERS) & 0xffffffff)))
    place = min(place, max(0, len(content) - len(new)))
    return content[:place] + new + content[place + len(new):]


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[:rng.randrange(len(content) + 1)]


def append(content: bytes, rng: random.Random) -> bytes:
    return content + rng.randbytes(rng.randint(1, 5000))


def swap_blocks(content: bytes, rng: random.Random) -> bytes:
    size = rng.choice((8, 64, 512, 4096))
    a, b = sorted(rng.randrange(max(1, len(content) - size)) for _ in range(2))
    if b < a + size:
        return content
    return (content[:a] + content[b:b + size] + content[a + size:b] + content[a:a + size]
            + content[b + size:])


def zero_block(content: bytes, rng: random.Random) -> bytes:
    size = rng.choice((8, 64, 512, 4096))
    place = rng.randrange(len(content) + 1)
    return content[:place] + b"\0" * len(content[place:place + size]) + content[place + size:]


def change_number(content: bytes, rng: random.Random) -> bytes:
    """An aligned 8-byte number that could be a length or an address becomes another one."""
    for _ in range(200):
        place = 8 * rng.randrange(max(1, len(content) // 8 - 1))
        number = int.from_bytes(content[place:place + 8], "little")
        if 0 < number <= len(content):
            new = rng.choice((*EVIL_NUMBERS, number + 1, number - 1, number * 2, len(content),
                              len(content) - 1, 8 * rng.randrange(200)))
            return content[:place] + struct.pack("<Q", new) + content[place + 8:]
    return content


def find_all(content: bytes, words: tuple[bytes, ...]):
    for word in words:
        place = content.find(word)
        while place >= 0:
            yield place
            place = content.find(word, place + 1)
