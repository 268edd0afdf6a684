# Debian with Python, from a root file system that images/dev/rootfs makes of Debian's packages:
# the base of the development images where no container registry is within reach.
FROM scratch
ADD rootfs.tar /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
CMD ["/bin/bash"]
