// A shim beneath the gateway's resolver (LD_PRELOAD): the host TIDEGATE_TEST_HOST is at TIDEGATE_TEST_PORT of 127.0.0.1,
// whichever port is connected to.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define REAL(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))

// An address of this machine that nobody else uses.
static const char *MARK = "127.77.7.77";

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    const char *host = getenv("TIDEGATE_TEST_HOST");
    if (node && host && strcmp(node, host) == 0) node = MARK;
    return REAL(getaddrinfo)(node, service, hints, found);
}

int connect(int fd, const struct sockaddr *to, socklen_t length) {
    const char *port = getenv("TIDEGATE_TEST_PORT");
    if (port && to->sa_family == AF_INET && length >= sizeof(struct sockaddr_in)) {
        struct sockaddr_in address;
        memcpy(&address, to, sizeof address);
        if (address.sin_addr.s_addr == inet_addr(MARK)) {
            address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
            address.sin_port = htons((unsigned short)atoi(port));
            return REAL(connect)(fd, (struct sockaddr *)&address, sizeof address);
        }
    }
    return REAL(connect)(fd, to, length);
}
