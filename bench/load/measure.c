/* Clocks, CPU time of other processes, and histograms. */
#define _GNU_SOURCE
#include <string.h>
#include <time.h>

#include "load.h"

static int pids[MAX_SERVERS], pid_count;

static int64_t read_clock(clockid_t id) {
    struct timespec t;
    if (clock_gettime(id, &t) < 0)
        return 0;
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int64_t now_ns(void) { return read_clock(CLOCK_MONOTONIC); }

void cpu_watch(int pid) {
    if (pid_count < MAX_SERVERS)
        pids[pid_count++] = pid;
}

/* The CPU clock of a process counts all its threads, ended ones too, in nanoseconds; /proc/PID/stat counts in ticks of
 * ten milliseconds. */
struct cpu cpu_read(void) {
    struct cpu cpu = {.own = read_clock(CLOCK_PROCESS_CPUTIME_ID) / 1e9};
    for (int i = 0; i < pid_count; i++) {
        clockid_t id;
        if (clock_getcpuclockid(pids[i], &id) == 0)
            cpu.server[i] = read_clock(id) / 1e9;
    }
    return cpu;
}

void cpu_print(const struct cpu *from, const struct cpu *to) {
    printf("\"cpu\": [");
    for (int i = 0; i < pid_count; i++)
        printf("%s%.6f", i ? ", " : "", to->server[i] - from->server[i]);
    printf("], \"own_cpu\": %.6f", to->own - from->own);
}

void histogram_clear(struct histogram *h) { memset(h, 0, sizeof *h); }

void histogram_add(struct histogram *h, int64_t ns) {
    uint64_t value = ns < HISTOGRAM_STEPS ? HISTOGRAM_STEPS : (uint64_t)ns;
    int shift = 63 - __builtin_clzll(value) - 8; /* the nine leading bits choose the step */
    h->count[shift * HISTOGRAM_STEPS + (int)((value >> shift) - HISTOGRAM_STEPS)]++;
    h->total++;
    if (ns > h->most)
        h->most = ns;
}

static double percentile(const struct histogram *h, double part) {
    int64_t rank = (int64_t)(part * h->total), seen = 0;
    for (int i = 0; i < 64 * HISTOGRAM_STEPS; i++) {
        seen += h->count[i];
        if (seen > rank) {
            uint64_t value = (uint64_t)(HISTOGRAM_STEPS + i % HISTOGRAM_STEPS) << (i / HISTOGRAM_STEPS);
            return value / 1e6;
        }
    }
    return h->most / 1e6;
}

void histogram_print(const char *name, const struct histogram *h) {
    printf("\"%s\": {\"count\": %lld, \"p50\": %.4f, \"p95\": %.4f, \"p99\": %.4f, \"max\": %.4f}", name,
           (long long)h->total, percentile(h, 0.50), percentile(h, 0.95), percentile(h, 0.99), h->most / 1e6);
}
