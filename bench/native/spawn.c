/* How fast can this machine start /bin/true at all?
 *
 * usage: spawn PROCESSES SPAWNS
 * PROCESSES loops start /bin/true by posix_spawn (vfork inside glibc) and wait for it, SPAWNS times altogether. They
 * begin together; what is printed is the seconds from then until the last has ended. No pipes, no database, no
 * bookkeeping: nothing that runs commands on this machine can be faster.
 */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void loop(long spawns) {
    char *argv[] = {"/bin/true", NULL};
    char *env[] = {NULL};
    for (long i = 0; i < spawns; i++) {
        pid_t child;
        int status;
        if (posix_spawn(&child, argv[0], NULL, NULL, argv, env) != 0) _exit(1);
        while (waitpid(child, &status, 0) < 0)
            if (errno != EINTR) _exit(1);
        if (status != 0) _exit(1);
    }
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    long processes = strtol(argv[1], NULL, 10), spawns = strtol(argv[2], NULL, 10);
    int gate[2];
    if (processes < 1 || spawns < processes || pipe(gate) != 0) return 2;
    for (long i = 0; i < processes; i++) {
        pid_t child = fork();
        if (child < 0) return 1;
        if (child == 0) {
            char byte;
            close(gate[1]);
            if (read(gate[0], &byte, 1) < 0) _exit(1); /* returns once the parent closes its end */
            loop(spawns / processes + (i < spawns % processes));
            _exit(0);
        }
    }
    double begin = now();
    close(gate[1]);
    int failed = 0, status;
    for (long i = 0; i < processes; i++)
        if (wait(&status) < 0 || status != 0) failed = 1;
    if (failed) return 1;
    printf("%.9f\n", now() - begin);
    return 0;
}
