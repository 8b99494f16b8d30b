/* A plain command that puts its standard input into upper case. */
#include <ctype.h>
#include <stdio.h>

int main(void)
{
    int c;
    while ((c = getchar()) != EOF)
        if (putchar(toupper(c)) == EOF)
            return 1;
    return ferror(stdin) ? 1 : 0;
}
