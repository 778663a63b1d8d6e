#include "ccurlsupport.h"
