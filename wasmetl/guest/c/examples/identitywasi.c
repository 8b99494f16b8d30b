/* A plain command that gives its standard input as it is. */
#include <unistd.h>

int main(void)
{
    static char buffer[65536];
    ssize_t n;
    while ((n = read(0, buffer, sizeof buffer)) > 0)
        for (ssize_t done = 0, w; done < n; done += w)
            if ((w = write(1, buffer + done, (size_t)(n - done))) < 0)
                return 1;
    return n < 0;
}
