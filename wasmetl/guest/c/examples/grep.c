/*
 * Keeps the lines in which the argument "word" occurs, as a filter of JSON-lines
 * by a piece of their text. An object of which no line is left is dropped.
 */
#include "../shoal_transform.h"

static char line[1 << 20], chunk[65536], word[256];

static int contains(const char *text, size_t len, const char *part, size_t part_len)
{
    for (size_t i = 0; i + part_len <= len; i++) {
        const char *hit = memchr(text + i, part[0], len - i - part_len + 1);
        if (hit == NULL)
            return 0;
        i = (size_t)(hit - text);
        if (memcmp(hit, part, part_len) == 0)
            return 1;
    }
    return 0;
}

SHOAL_TRANSFORM
{
    if (shoal_get_string("arg:word", word, sizeof word) <= 0)
        return shoal_failed("say --arg word=...");
    size_t word_len = strlen(word), len = 0;
    int kept = 0;
    int32_t n;
    do {
        n = shoal_read(chunk, sizeof chunk);
        if (n < 0)
            return n;
        for (int32_t i = 0; i <= n; i++) {
            int end = n == 0 && len > 0; /* the last line may have no newline */
            if (i < n) {
                if (len == sizeof line)
                    return shoal_failed("a line longer than 1 MiB");
                line[len++] = chunk[i];
                end = chunk[i] == '\n';
            }
            if (!end)
                continue;
            if (contains(line, len, word, word_len)) {
                kept = 1;
                if (shoal_write(line, (uint32_t)len) < 0)
                    return SHOAL_IO;
            }
            len = 0;
        }
    } while (n > 0);
    return kept ? 0 : shoal_drop();
}
