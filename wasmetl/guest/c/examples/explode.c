/* Makes an object of each regular file of a tar archive (ustar names up to 100
 * bytes; others are refused). */
#include "../shoal_transform.h"

static char block[512], buffer[65536];

/* Fills p with len bytes: 1, 0 if the object ends before the first, or a code. */
static int32_t fill(char *p, uint32_t len)
{
    for (uint32_t have = 0; have < len;) {
        int32_t n = shoal_read(p + have, len - have);
        if (n < 0)
            return n;
        if (n == 0)
            return have == 0 ? 0 : shoal_failed("the archive is cut off");
        have += (uint32_t)n;
    }
    return 1;
}

static int64_t octal(const char *p, int len)
{
    int64_t v = 0;
    for (int i = 0; i < len && p[i] != 0 && p[i] != ' '; i++) {
        if (p[i] < '0' || p[i] > '7')
            return -1;
        v = v * 8 + (p[i] - '0');
    }
    return v;
}

SHOAL_TRANSFORM
{
    for (;;) {
        int32_t more = fill(block, sizeof block);
        if (more <= 0)
            return more;
        if (block[0] == 0)
            return 0; /* two empty blocks end an archive; one is enough for us */
        int64_t size = octal(block + 124, 12);
        if (size < 0 || memcmp(block + 257, "ustar", 5) != 0)
            return shoal_failed("not a tar archive of the ustar form");
        int regular = block[156] == '0' || block[156] == 0;
        if (block[156] == 'x' || block[156] == 'L' || block[345] != 0)
            return shoal_failed("a name longer than 100 bytes");
        if (regular && shoal_emit(block, (uint32_t)strnlen(block, 100)) < 0)
            return SHOAL_INVALID;
        for (int64_t padded = (size + 511) / 512 * 512; padded > 0;) {
            uint32_t n = padded < (int64_t)sizeof buffer ? (uint32_t)padded : sizeof buffer;
            more = fill(buffer, n);
            if (more <= 0)
                return more < 0 ? more : shoal_failed("the archive is cut off");
            uint32_t keep = size < (int64_t)n ? (uint32_t)size : n;
            if (regular && keep > 0 && shoal_write(buffer, keep) < 0)
                return SHOAL_IO;
            size -= keep;
            padded -= n;
        }
    }
}
