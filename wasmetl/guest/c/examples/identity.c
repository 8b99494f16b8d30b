/* Gives every object as it is. */
#include "../shoal_transform.h"

SHOAL_TRANSFORM
{
    static char buffer[65536];
    int32_t n;
    while ((n = shoal_read(buffer, sizeof buffer)) > 0)
        if (shoal_write(buffer, (uint32_t)n) < 0)
            return SHOAL_IO;
    return n;
}
