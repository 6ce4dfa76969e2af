/* load PORT PID…: loads the Socket.IO server on 127.0.0.1:PORT and counts the CPU time of the processes named.
 *
 * Takes one command a line and answers each with one line of JSON; `name=value` where the default is not meant:
 *
 *   connect n= rooms= deaf= polling= publishers= together=   subscribers and publishers; once, and first
 *   flow window= rate= size= warm= ms=                        publish steadily and measure
 *   publish n= window= size=                                  publish n messages
 *   join n=                                                   the first subscriber joins more rooms, until it is in n
 *   drop                                                      cut all subscribers off
 *   move port= pid=                                           clients connect there from now on; its CPU time counts too
 *   return together=                                          they come back for what they missed
 *   read                                                      deaf subscribers read again
 *   idle ms=                                                  only answer pings
 *   probe on=                                                 watch the server's event loop meanwhile
 *
 * Build: cc -O2 -o load *.c
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "load.h"

struct load load;

static void allow_many_files(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int count, char **words) {
    if (count < 2) {
        fprintf(stderr, "usage: load PORT PID...\n");
        return 2;
    }
    load.port = atoi(words[1]);
    for (int i = 2; i < count; i++)
        cpu_watch(atoi(words[i]));
    allow_many_files();
    load.epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event input = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(load.epoll, EPOLL_CTL_ADD, STDIN_FILENO, &input);
    fcntl(STDIN_FILENO, F_SETFL, fcntl(STDIN_FILENO, F_GETFL) | O_NONBLOCK);
    char line[512];
    while (command_read(line, sizeof line)) {
        if (!command_run(line)) {
            fprintf(stderr, "unknown command: %s\n", line);
            return 2;
        }
    }
    return 0;
}
