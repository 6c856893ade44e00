/* How long does a load take from so much memory?
 *
 * usage: memory KIB
 * Follows a chain that visits every cache line of KIB kibibytes once, in random order, and prints the nanoseconds of
 * one step: each load needs the one before it, and no prefetcher can guess it. What fits the caches that other
 * tenants of the host leave us answers in a few, memory in a hundred or more.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { LINE = 64, STEPS = 2000000 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    size_t lines = (size_t)strtoul(argv[1], NULL, 10) * 1024 / LINE;
    if (lines < 2) return 2;
    char *memory = malloc(lines * LINE);
    size_t *order = malloc(lines * sizeof *order);
    if (memory == NULL || order == NULL) return 1;
    for (size_t i = 0; i < lines; i++) order[i] = i;
    uint64_t random = 88172645463325252u; /* xorshift64 */
    for (size_t i = lines - 1; i > 0; i--) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        size_t other = random % (i + 1), swapped = order[i];
        order[i] = order[other], order[other] = swapped;
    }
    for (size_t i = 0; i < lines; i++)
        *(void **)(memory + order[i] * LINE) = memory + order[(i + 1) % lines] * LINE;
    void **place = (void **)memory;
    for (size_t i = 0; i < lines; i++) place = *place; /* warm */
    double begin = now();
    for (long i = 0; i < STEPS; i++) place = *place;
    double took = now() - begin;
    printf("%.2f\n", took / STEPS);
    return place == NULL;
}
