/* The commands. Each prints one line of JSON when it is done. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "load.h"

/* Without any progress for so long, what is still missing will not come. */
#define PATIENCE_NS 10000000000LL

/* Reads `name=value` out of the command; times are milliseconds, sizes bytes. */
static double argument(const char *line, const char *name, double otherwise) {
    char key[32];
    snprintf(key, sizeof key, " %s=", name);
    const char *found = strstr(line, key);
    return found ? atof(found + strlen(key)) : otherwise;
}

static void begin_measuring(void) {
    load.measured_from = now_ns();
    histogram_clear(&load.latency);
    histogram_clear(&load.answers);
}

/* Handles what comes until `count` has reached `goal`, or nothing moved for too long; false: it did not. */
static bool await(const int64_t *count, int64_t goal) {
    int64_t seen = *count, since = now_ns();
    while (*count < goal) {
        turn(5);
        if (*count != seen) {
            seen = *count;
            since = now_ns();
        } else if (now_ns() - since > PATIENCE_NS) {
            return false;
        }
    }
    return true;
}

/* What every account ends with. */
static void print_faults(void) {
    printf("\"lost\": %lld, \"repeated\": %lld, \"gaps\": %lld, \"dropped\": %lld, \"unknown_gaps\": %lld, "
           "\"misplaced_gaps\": %lld, \"refused\": %lld, \"failed\": %d, \"gone\": %d}\n",
           (long long)load.lost, (long long)load.repeated, (long long)load.gaps, (long long)load.dropped,
           (long long)load.unknown, (long long)load.misplaced, (long long)load.refused, load.failed, load.gone);
}

/* -------------------------------------------------------------------------------------- connecting, cutting */

/* Opens `count` clients, at most `together` of them unfinished at any time. */
static double open_all(struct client *clients, int count, int together) {
    int64_t began = now_ns();
    load.opened = load.ready = load.failed = 0;
    while (load.ready + load.failed < count) {
        while (load.opened < count && load.opened - load.ready - load.failed < together)
            client_open(&clients[load.opened++]);
        turn(100);
        if (now_ns() - began > 12 * PATIENCE_NS)
            break;
    }
    return (now_ns() - began) / 1e9;
}

/* connect n= rooms= deaf= polling= named= publishers= together= */
static void run_connect(const char *line) {
    int count = argument(line, "n", 1000), deaf = argument(line, "deaf", 0);
    load.rooms = argument(line, "rooms", 1);
    load.named = argument(line, "named", 0) != 0;
    load.readers = calloc(load.rooms, sizeof *load.readers);
    load.subscriber_count = count;
    load.subscribers = calloc(count ? count : 1, sizeof *load.subscribers);
    load.publisher_count = argument(line, "publishers", 1);
    load.publishers = calloc(load.publisher_count, sizeof *load.publishers);
    for (int i = 0; i < load.publisher_count; i++)
        load.publishers[i] = (struct client){.number = i, .publisher = true};
    for (int i = 0; i < count; i++)
        load.subscribers[i] =
            (struct client){.number = i, .deaf = i < deaf, .polling = argument(line, "polling", 0) != 0};
    open_all(load.publishers, load.publisher_count, load.publisher_count);
    int failed = load.failed;
    struct cpu from = cpu_read();
    double seconds = open_all(load.subscribers, count, argument(line, "together", 200));
    struct cpu to = cpu_read();
    load.failed += failed;
    printf("{\"seconds\": %.4f, \"connected\": %d, ", seconds, load.ready);
    cpu_print(&from, &to);
    printf(", ");
    print_faults();
}

/* drop: cuts every subscriber, every other one by a reset */
static void run_drop(void) {
    for (int i = 0; i < load.subscriber_count; i++)
        client_cut(&load.subscribers[i], i % 2);
    printf("{}\n");
}

static int count_behind(void) {
    int behind = 0;
    for (int i = 0; i < load.subscriber_count; i++)
        behind += load.subscribers[i].next < published(&load.subscribers[i]);
    return behind;
}

static int64_t total_received(void) { return load.deliveries + load.deaf_deliveries; }

/* Waits until every client has what was published; prints what that took. */
static void catch_up(int64_t began, const struct cpu *from, int64_t before) {
    int64_t seen = total_received(), since = now_ns();
    while (load.behind > 0 && now_ns() - since < PATIENCE_NS) {
        turn(5);
        if (total_received() != seen) {
            seen = total_received();
            since = now_ns();
        }
    }
    double seconds = (now_ns() - began) / 1e9;
    struct cpu to = cpu_read();
    int64_t missing = 0;
    for (int i = 0; i < load.subscriber_count; i++)
        missing += published(&load.subscribers[i]) - load.subscribers[i].next;
    printf("{\"seconds\": %.4f, \"received\": %lld, \"missing\": %lld, \"behind\": %d, ", seconds,
           (long long)(total_received() - before), (long long)missing, load.behind);
    cpu_print(from, &to);
    printf(", ");
}

/* move port= pid=: from now on clients connect to another port, whose process is counted too */
static void run_move(const char *line) {
    load.port = argument(line, "port", load.port);
    cpu_watch(argument(line, "pid", 0));
    printf("{}\n");
}

/* return together=: everybody comes back with pid and offset, and is waited for until it has what it missed */
static void run_return(const char *line) {
    int64_t began = now_ns(), before = total_received();
    struct cpu from = cpu_read();
    load.returning = true;
    load.behind = count_behind();
    double seconds = open_all(load.subscribers, load.subscriber_count, argument(line, "together", 200));
    catch_up(began, &from, before);
    int recovered = 0;
    for (int i = 0; i < load.subscriber_count; i++)
        recovered += load.subscribers[i].recovered;
    printf("\"connected_after\": %.4f, \"connected\": %d, \"recovered\": %d, ", seconds, load.ready, recovered);
    print_faults();
}

/* read: those that were deaf read all that waits for them */
static void run_read(void) {
    int64_t began = now_ns(), before = total_received();
    struct cpu from = cpu_read();
    load.behind = count_behind();
    for (int i = 0; i < load.subscriber_count; i++)
        if (load.subscribers[i].deaf && load.subscribers[i].state == READY)
            client_listen(&load.subscribers[i], true);
    catch_up(began, &from, before);
    int64_t least = -1;
    for (int i = 0; i < load.subscriber_count; i++)
        if (load.subscribers[i].deaf && (least < 0 || load.subscribers[i].since_gap < least))
            least = load.subscribers[i].since_gap;
    printf("\"least_since_gap\": %lld, ", (long long)least);
    print_faults();
}

/* ---------------------------------------------------------------------------------------------- publishing */

/* flow window= rate= size= warm= ms=: publishes steadily, and measures after `warm`.
 *
 * With a rate, so many messages a second; without one, as many as leave at most `window` in flight: a message is in
 * flight until every reader has it and the server has acknowledged it. */
static void run_flow(const char *line) {
    int window = argument(line, "window", 1), size = argument(line, "size", 100);
    double rate = argument(line, "rate", 0);
    int64_t gap = rate > 0 ? (int64_t)(1e9 / rate) : 0, due = now_ns();
    int64_t start = due + (int64_t)(argument(line, "warm", 1000) * 1e6), stop = INT64_MAX;
    int64_t complete = 0, deliveries = 0, pings = 0, progress = load.complete, since = due;
    struct cpu from = {0};
    bool stalled = false;
    while (now_ns() < stop && !stalled) {
        if (stop == INT64_MAX && now_ns() >= start) {
            begin_measuring();
            stop = load.measured_from + (int64_t)(argument(line, "ms", 3000) * 1e6);
            complete = load.complete;
            deliveries = load.deliveries;
            pings = load.pings;
            from = cpu_read();
        }
        int64_t under_way = load.sent - load.complete;
        if (rate > 0) {
            for (; due <= now_ns() && under_way < IN_FLIGHT_MOST; due += gap, under_way++)
                session_publish(size);
            turn(due - now_ns() > 2000000 ? 1 : 0);
        } else {
            for (; under_way < window; under_way++)
                session_publish(size);
            turn(10);
        }
        if (load.complete != progress) {
            progress = load.complete;
            since = now_ns();
        }
        stalled = now_ns() - since > PATIENCE_NS;
    }
    struct cpu to = cpu_read();
    double seconds = (now_ns() - load.measured_from) / 1e9;
    complete = load.complete - complete;
    deliveries = load.deliveries - deliveries;
    pings = load.pings - pings;
    load.measured_from = 0;
    stalled = !await(&load.complete, load.sent) || stalled;
    printf("{\"seconds\": %.4f, \"messages\": %lld, \"deliveries\": %lld, \"pings\": %lld, \"stalled\": %s, ", seconds,
           (long long)complete, (long long)deliveries, (long long)pings, stalled ? "true" : "false");
    cpu_print(&from, &to);
    printf(", ");
    histogram_print("latency", &load.latency);
    printf(", ");
    histogram_print("answers", &load.answers);
    printf(", ");
    print_faults();
}

/* publish n= window= size=: publishes n messages; how long until all are acknowledged, and delivered to whoever reads */
static void run_publish(const char *line) {
    int window = argument(line, "window", 16), size = argument(line, "size", 100);
    int64_t goal = load.sent + (int64_t)argument(line, "n", 1);
    bool stalled = false;
    struct cpu from = cpu_read();
    begin_measuring();
    while (load.sent < goal && !stalled) {
        while (load.sent < goal && load.sent - load.complete < window)
            session_publish(size);
        stalled = !await(&load.complete, load.sent - window + 1);
    }
    stalled = !await(&load.complete, load.sent) || stalled;
    struct cpu to = cpu_read();
    printf("{\"seconds\": %.4f, \"stalled\": %s, ", (now_ns() - load.measured_from) / 1e9, stalled ? "true" : "false");
    load.measured_from = 0;
    cpu_print(&from, &to);
    printf(", ");
    histogram_print("answers", &load.answers);
    printf(", ");
    print_faults();
}

/* join n=: the first subscriber sends all at once what brings it into n rooms; how long until all of it is answered */
static void run_join(const char *line) {
    int count = (int)argument(line, "n", 1000) - 1;
    struct cpu from = cpu_read();
    int64_t began = now_ns(), goal = load.joined + count;
    for (int i = 1; i <= count; i++) {
        char verb[96];
        int n = snprintf(verb, sizeof verb, "42%d[\"subscribe\",{\"room\":\"more-%d\"}]", i, i);
        client_send(&load.subscribers[0], verb, n);
    }
    bool stalled = !await(&load.joined, goal);
    struct cpu to = cpu_read();
    printf("{\"seconds\": %.4f, \"stalled\": %s, ", (now_ns() - began) / 1e9, stalled ? "true" : "false");
    cpu_print(&from, &to);
    printf(", ");
    print_faults();
}

/* ------------------------------------------------------------------------------------------------- waiting */

/* idle ms=: only answers pings */
static void run_idle(const char *line) {
    struct cpu from = cpu_read();
    int64_t pings = load.pings, stop = now_ns() + (int64_t)(argument(line, "ms", 1000) * 1e6);
    while (now_ns() < stop)
        turn(20);
    struct cpu to = cpu_read();
    printf("{\"pings\": %lld, ", (long long)(load.pings - pings));
    cpu_print(&from, &to);
    printf(", ");
    print_faults();
}

/* probe on=: starts the prober afresh, or ends it; prints what was seen before */
static void run_probe(const char *line) {
    printf("{");
    histogram_print("probes", &load.probes);
    printf("}\n");
    probe_set(argument(line, "on", 1) != 0);
}

bool command_run(const char *line) {
    if (!strncmp(line, "connect", 7))
        run_connect(line);
    else if (!strncmp(line, "flow", 4))
        run_flow(line);
    else if (!strncmp(line, "publish", 7))
        run_publish(line);
    else if (!strncmp(line, "join", 4))
        run_join(line);
    else if (!strcmp(line, "drop"))
        run_drop();
    else if (!strncmp(line, "move", 4))
        run_move(line);
    else if (!strncmp(line, "return", 6))
        run_return(line);
    else if (!strcmp(line, "read"))
        run_read();
    else if (!strncmp(line, "idle", 4))
        run_idle(line);
    else if (!strncmp(line, "probe", 5))
        run_probe(line);
    else
        return false;
    fflush(stdout);
    return true;
}
