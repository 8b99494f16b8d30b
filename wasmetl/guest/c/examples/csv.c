/*
 * Makes JSON lines of comma-separated values (RFC 4180), all of them text, in a few
 * hundred KiB of memory whatever the length of a line. The first line names the
 * columns. The argument "delimiter" is a character, or the word tab.
 */
#include "../shoal_transform.h"

enum { MAX_COLUMNS = 1024 };
enum state { START, PLAIN, QUOTED, QUOTE }; /* QUOTE: one was met within quotes */

static uint8_t in[65536], out[65536], names[65536];
static uint32_t name_end[MAX_COLUMNS];
static uint32_t out_len, names_len, columns, field, line;
static int header;    /* the line that names the columns is being read */
static int32_t ended; /* with this code, once it is not 0 */

static void fail(const char *what)
{
    char text[128] = "line ";
    uint32_t len = 5, digits = 1;
    for (uint32_t n = line; n >= 10; n /= 10)
        digits++;
    for (uint32_t n = line, i = digits; i > 0; n /= 10)
        text[len + --i] = (char)('0' + n % 10);
    len += digits;
    strcpy(text + len, ": ");
    strcpy(text + len + 2, what);
    if (ended == 0)
        ended = shoal_failed(text);
}

static void flush(void)
{
    if (out_len > 0 && ended == 0 && shoal_write(out, out_len) < 0)
        ended = SHOAL_IO;
    out_len = 0;
}

static inline void put(uint8_t c)
{
    if (header) {
        if (names_len == sizeof names)
            fail("the names of the columns are longer than 64 KiB");
        else
            names[names_len++] = c;
        return;
    }
    if (out_len == sizeof out)
        flush();
    out[out_len++] = c;
}

/* Adds a byte of a field, as JSON writes it. UTF-8 stays as it is. */
static inline void add(uint8_t c)
{
    static const char hex[] = "0123456789abcdef";
    if (c >= ' ' && c != '"' && c != '\\') {
        put(c);
        return;
    }
    put('\\');
    if (c == '"' || c == '\\') {
        put(c);
    } else if (c == '\n' || c == '\r' || c == '\t') {
        put(c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
    } else {
        put('u'), put('0'), put('0'), put((uint8_t)hex[c >> 4]), put((uint8_t)hex[c & 15]);
    }
}

static void begin_field(void)
{
    if (header) {
        put('"');
        return;
    }
    if (field == columns) {
        fail("more columns than names");
        return;
    }
    put(field == 0 ? '{' : ',');
    for (uint32_t i = field == 0 ? 0 : name_end[field - 1]; i < name_end[field]; i++)
        put(names[i]);
    put(':'), put('"');
}

static void end_field(void)
{
    put('"');
    if (header && columns == MAX_COLUMNS)
        fail("more than 1024 columns");
    else if (header)
        name_end[columns++] = names_len;
    field++;
}

static void end_record(void)
{
    if (!header && field < columns)
        fail("fewer columns than names");
    if (!header)
        put('}'), put('\n');
    header = 0;
    field = 0;
    line++;
}

static enum state step(enum state s, uint8_t c, uint8_t delimiter)
{
    if (s == QUOTED) {
        if (c == '"')
            return QUOTE;
        line += c == '\n';
        add(c);
        return QUOTED;
    }
    if (s == QUOTE && c == '"') {
        add(c);
        return QUOTED;
    }
    if (c == '\n' && s == START && field == 0) {
        line++; /* an empty line */
        return START;
    }
    if (c == delimiter || c == '\n') {
        if (s == START)
            begin_field();
        end_field();
        if (c == '\n')
            end_record();
        return START;
    }
    if (s == QUOTE)
        fail("text after a closing quote");
    if (c == '"' && s == PLAIN)
        fail("a quote in a field that does not begin with one");
    if (s == START)
        begin_field();
    if (c == '"')
        return QUOTED;
    add(c);
    return PLAIN;
}

SHOAL_TRANSFORM
{
    char text[8];
    uint8_t delimiter = ',';
    int32_t n = shoal_get_string("arg:delimiter", text, sizeof text);
    if (n >= 0) {
        delimiter = (uint8_t)(strcmp(text, "tab") == 0 ? '\t' : text[0]);
        if ((n != 1 && delimiter != '\t') || delimiter == '"' || delimiter == '\r' || delimiter == '\n')
            return shoal_failed("delimiter: say one character, or tab");
    }
    if (shoal_set("content-type", 12, "application/x-ndjson", 20) < 0 || shoal_set("ext", 3, "jsonl", 5) < 0)
        return SHOAL_INVALID;

    static const uint8_t mark[] = {0xef, 0xbb, 0xbf}; /* as spreadsheets begin a text */
    uint32_t marked = 0;
    enum state s = START;
    int cr = 0; /* a \r that is left out if \n follows */
    out_len = names_len = columns = field = 0;
    line = 1, header = 1, ended = 0;
    while ((n = shoal_read(in, sizeof in)) > 0) {
        for (int32_t i = 0; i < n && ended == 0; i++) {
            if (marked < sizeof mark && in[i] == mark[marked]) {
                marked++;
                continue;
            }
            for (uint32_t k = 0; marked < sizeof mark && k < marked; k++)
                s = step(s, mark[k], delimiter);
            marked = sizeof mark;
            if (cr && in[i] != '\n')
                s = step(s, '\r', delimiter);
            cr = in[i] == '\r' && s != QUOTED;
            if (!cr)
                s = step(s, in[i], delimiter);
        }
        if (ended != 0)
            return ended;
    }
    if (n < 0)
        return n;
    if (s == QUOTED)
        fail("a quote is not closed");
    else if (s != START || field > 0)
        step(s, '\n', delimiter);
    flush();
    return ended;
}
