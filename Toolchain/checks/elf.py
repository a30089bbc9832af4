"""The parts of an ELF file that show what a program needs from the system."""

import struct

PT_DYNAMIC, PT_INTERP = 2, 3
PT_GNU_STACK, PT_GNU_RELRO = 0x6474E551, 0x6474E552
PF_X, PF_W = 1, 2
DT_NEEDED, DT_TEXTREL, DT_FLAGS = 1, 22, 30
DF_TEXTREL = 4
SHT_SYMTAB, SHT_DYNSYM = 2, 11
SHN_UNDEF = 0


class Failure(Exception):
    """The file fails a check; the message says why."""


class Program:
    """The parts of an ELF file that the checks read."""

    def __init__(self, content: bytes):
        if content[:4] != b"\x7fELF" or content[5] != 1:
            raise Failure("not a little-endian ELF file")
        self.content = content
        self.is_64 = content[4] == 2
        header = "<HHIQQQIHHHHHH" if self.is_64 else "<HHIIIIIHHHHHH"
        fields = struct.unpack_from(header, content, 16)
        _, _, _, _, self.segments_at, self.sections_at = fields[:6]
        self.segment_size, self.segment_count = fields[8], fields[9]
        self.section_size, self.section_count = fields[10], fields[11]

    def segments(self) -> list[tuple[int, int, int, int]]:
        """Type, flags, offset and size in the file of each."""
        found = []
        for index in range(self.segment_count):
            at = self.segments_at + index * self.segment_size
            if self.is_64:
                kind, flags, offset, _, _, size = struct.unpack_from("<IIQQQQ", self.content, at)
            else:
                values = struct.unpack_from("<IIIIIII", self.content, at)
                kind, offset, _, _, size, _, flags = values
            found.append((kind, flags, offset, size))
        return found

    def dynamic(self) -> list[tuple[int, int]]:
        """Tag and value of each entry for the dynamic loader."""
        entry = struct.Struct("<qQ" if self.is_64 else "<iI")
        found = []
        for kind, _, offset, size in self.segments():
            if kind == PT_DYNAMIC:
                found += list(entry.iter_unpack(self.content[offset : offset + size]))
        return found

    def symbols(self, wanted: int) -> list[int]:
        """The section index of each symbol in tables of this type, without the empty first one."""
        found = []
        for index in range(self.section_count):
            at = self.sections_at + index * self.section_size
            form = "<IIQQQQ" if self.is_64 else "<IIIIII"
            _, kind, _, _, offset, size = struct.unpack_from(form, self.content, at)
            if kind == wanted:
                symbol = struct.Struct("<IBBHQQ" if self.is_64 else "<IIIBBH")
                place = 3 if self.is_64 else 5
                rows = symbol.iter_unpack(self.content[offset : offset + size])
                found += [row[place] for row in rows][1:]
        return found

    def check_is_static(self) -> None:
        """No dynamic loader and no shared library."""
        if any(kind == PT_INTERP for kind, _, _, _ in self.segments()):
            raise Failure("asks for a dynamic loader (PT_INTERP)")
        if any(tag == DT_NEEDED for tag, _ in self.dynamic()):
            raise Failure("needs shared libraries")
