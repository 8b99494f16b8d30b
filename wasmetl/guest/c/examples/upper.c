/* Puts the ASCII letters of a text into upper case. The loop is such that the
 * compiler makes SIMD instructions of it. */
#include "../shoal_transform.h"

SHOAL_TRANSFORM
{
    static uint8_t buffer[65536];
    int32_t n;
    while ((n = shoal_read(buffer, sizeof buffer)) > 0) {
        for (int32_t i = 0; i < n; i++) {
            uint8_t c = buffer[i];
            buffer[i] = c - ((uint8_t)(c - 'a') < 26 ? 32 : 0);
        }
        if (shoal_write(buffer, (uint32_t)n) < 0)
            return SHOAL_IO;
    }
    return n;
}
